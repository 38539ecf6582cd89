"""Where a conversation may be cut: never inside an answer, never between a tool call and its output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Item = dict[str, Any]


@dataclass(frozen=True)
class Cut:
    """A conversation in two parts, by the places of its items.

    Attributes:
        folded: A summary will stand for them.
        kept: They go on as they are, the first of them a user message.
    """

    folded: list[int]
    kept: list[int]


def cut(items: Sequence[Item], *, begin: int, recent: int) -> Cut | None:
    """Return how to shorten a conversation so that its last `recent` items stay; None when nothing can go.

    The cut is moved back to where an answer or a user message begins. Where the kept part would begin with
    an answer, the user message that it answers is kept too: a model must see what it was asked.

    Args:
        items: The conversation.
        begin: Items before this place are not touched: the summary pair.
        recent: At least so many of the last stay.
    """
    place = max(len(items) - recent, begin)
    while place > begin and not _may_begin(items, place):
        place -= 1
    asked = [place] if _is_user(items[place]) else _question(items, begin, place)
    kept = [*(where for where in asked if where < place), *range(place, len(items))]
    folded = [where for where in range(begin, place) if where not in kept]
    return Cut(folded, kept) if folded else None


def _question(items: Sequence[Item], begin: int, place: int) -> list[int]:
    """Return the place of the last user message before `place`, if there is one."""
    return next(([where] for where in range(place - 1, begin - 1, -1) if _is_user(items[where])), [])


def _may_begin(items: Sequence[Item], place: int) -> bool:
    if _open_calls(items[:place]):
        return False
    item = items[place]
    if item.get("type") == "function_call_output":
        return False
    if _is_user(item):
        return True
    before = items[place - 1]
    return _is_user(before) or before.get("type") == "function_call_output"  # an answer begins


def _open_calls(items: Sequence[Item]) -> set[Any]:
    """Return the ids of calls whose outputs are not among `items`."""
    calls = {item.get("call_id") for item in items if item.get("type") == "function_call"}
    return calls - {item.get("call_id") for item in items if item.get("type") == "function_call_output"}


def _is_user(item: Item) -> bool:
    return item.get("role") not in {None, "assistant"}
