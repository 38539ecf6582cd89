"""Partial orders of side effects, and whether a ledger shows one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


class Series(tuple["Order", ...]):
    """Each begins after the one before it is done."""


class Beside(tuple["Order", ...]):
    """In any order."""


Order = str | Series | Beside


@dataclass
class Span:
    """A side effect's executions: when the first began, and from when on what follows may begin."""

    begun: float
    done: float


def names_in(order: Order) -> set[str]:
    """Return the names of all side effects."""
    return {order} if isinstance(order, str) else {name for part in order for name in names_in(part)}


def span_of(order: Order, spans: dict[str, Span]) -> Span | None:
    """Return from when to when it went on, None if there was nothing."""
    if isinstance(order, str):
        return spans.get(order)
    parts = [span for part in order if (span := span_of(part, spans)) is not None]
    if not parts:
        return None
    return Span(min(part.begun for part in parts), max(part.done for part in parts))


def disorder(order: Order, spans: dict[str, Span]) -> Iterator[str]:
    """Say what began too early."""
    if isinstance(order, str):
        return
    for part in order:
        yield from disorder(part, spans)
    if isinstance(order, Beside):
        return
    done, last = 0.0, ""
    for part in order:
        if (span := span_of(part, spans)) is None:
            continue
        if span.begun < done:
            yield f"{part} began {done - span.begun:.3f} s before {last} was done"
        if span.done > done:
            done, last = span.done, str(part)
