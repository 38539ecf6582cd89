"""Cancelling runs and all below them, on any kind of connection."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from sqlalchemy import bindparam, select

from polos.journal.children import cancel_run
from polos.journal.runs import RUNS, R
from polos.journal.statements import Params, Rows, Statement, Unit, one_of, texts_of
from polos.journal.states import LIVE

P = bindparam
MAX_AT_ONCE = 100  # runs cancelled in one transaction: their tree's root is locked meanwhile


class Target(NamedTuple):
    """A run to cancel."""

    id: str
    owner: str | None
    root_id: str
    parent_id: str | None
    parent_step: str | None
    awaited: int
    kind: str
    name: str


@dataclass(frozen=True)
class Cancelled:
    """A run that was cancelled: who executed it, its event's number, and who waited for it.

    Attributes:
        parent_status: Of the parent that waited for it, None when none did: if queued, it wants to be rung.
    """

    run_id: str
    owner: str | None
    kind: str
    name: str
    root_id: str
    number: int
    cancelled_by: str
    error: str
    parent_id: str | None
    parent_status: str | None
    parent_owner: str | None


class Journal(Protocol):
    """Reads and commits, off the event loop."""

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Run units as one transaction."""


_COLUMNS = [R[name] for name in Target._fields]
_above = select(R.id).where(R.id.op("IN")(texts_of(P("tops", type_=R.id.type)))).cte("above", recursive=True)
_tree = _above.union_all(select(R.id).where(R.parent_id == _above.c.id))
_LIVE_BELOW = Statement(
    select(*_COLUMNS)
    .join_from(RUNS, _tree, R.parent_id == _tree.c.id)
    .where(one_of(R.status, LIVE))
    .order_by(R.depth)
)
READ_AWAITED_CHILDREN = Statement(
    select(*_COLUMNS).where(R.parent_id == P("run"), R.awaited == 1, one_of(R.status, LIVE))
)
Question = tuple[Statement, dict[str, Any]]
Cancelling = Generator[Question | list[Unit], list[Any], list[Cancelled]]


def target_of(run: dict[str, Any]) -> Target:
    """Return a run, given by column name, as a target."""
    return Target(*(run[name] for name in Target._fields))


def awaited_below(run_id: str) -> Question:
    """Return the question for the live children that a run waits for, which are rows of `Target`."""
    return READ_AWAITED_CHILDREN, {"run": run_id}


def cancelling(targets: Sequence[Target], *, by: str, ring_again: float, resumed: bool = False) -> Cancelling:
    """Cancel runs and all below them: give what to read or commit, take the answer, return what was going.

    It looks below them until it finds nothing live: what a run started before its own turn came is found,
    and afterwards it can start nothing.

    Args:
        targets: The topmost runs.
        by: Why: ``user`` or ``parent``.
        ring_again: After how many seconds sweepers ring for a parent that this wakes.
        resumed: Go on below targets that are cancelled already.
    """
    cancelled: list[Cancelled] = []
    level = list(targets)
    tops = [target.id for target in targets] if resumed else None
    while level:
        for start in range(0, len(level), MAX_AT_ONCE):
            chosen = level[start : start + MAX_AT_ONCE]
            answers = yield [_unit(target, by, ring_again) for target in chosen]
            ended = zip(chosen, answers, strict=True)
            cancelled += [_cancelled(target, by, rows[0]) for target, rows in ended if rows]
        tops = [run.run_id for run in cancelled] if tops is None else tops
        level = [Target(*row) for row in (yield (_LIVE_BELOW, {"tops": json.dumps(tops)}))]
    return cancelled


def carry_out(work: Cancelling, journal: Journal) -> list[Cancelled]:
    """Do on a blocking connection what `cancelling` asks for."""
    answer: list[Any] | None = None
    try:
        while True:
            wanted = work.send(answer)  # type: ignore[arg-type]
            answer = journal.commit(wanted) if isinstance(wanted, list) else journal.read(*wanted)
    except StopIteration as done:
        found: list[Cancelled] = done.value
        return found


def _unit(target: Target, by: str, ring_again: float) -> Unit:
    return cancel_run(
        target.id,
        root_id=target.root_id,
        parent_id=target.parent_id if target.awaited else None,
        parent_step=target.parent_step,
        cancelled_by=by,
        error=_reason(target),
        ring_again=ring_again,
    )


def _cancelled(target: Target, by: str, row: tuple[Any, ...]) -> Cancelled:
    return Cancelled(
        target.id,
        target.owner,
        target.kind,
        target.name,
        target.root_id,
        number=row[3],
        cancelled_by=by,
        error=_reason(target),
        parent_id=target.parent_id if target.awaited else None,
        parent_status=row[1],
        parent_owner=row[2],
    )


def _reason(target: Target) -> str:
    return f"Run {target.id} was cancelled"
