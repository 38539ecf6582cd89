"""Units that end a run, and what every ending sets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, bindparam, case, exists, literal_column, select, update

from polos.journal.memory import Remembered, parts_of_end, sessions_of
from polos.journal.runs import RUNS, R, fence, spent_running
from polos.journal.spending import SUMS
from polos.journal.statements import Part, Statement, Unit, now
from polos.journal.states import RunStatus

P = bindparam


@dataclass(frozen=True)
class Ending:
    """How a run ends. Values are JSON text."""

    status: RunStatus
    output: str | None = None
    output_schema: str | None = None
    error: str | None = None
    final_state: str | None = None
    cancelled_by: str | None = None
    spent: float | None = None  # seconds that the attempt ran which ends

    def columns(self) -> dict[str, Any]:
        """Return the values by the names of the unit's parameters."""
        return {spec.name: getattr(self, spec.name) for spec in fields(self)}


ENDING_VALUES = {
    spec.name: P(spec.name, type_=R[spec.name].type) for spec in fields(Ending) if spec.name in R
}
END_OF_RUN = {
    "owner": None,
    "slot": None,
    "debounce_key": None,
    "ring_at": None,
    "running_seconds": spent_running,
    "claimed_at": None,
    "finished_at": now,
}


def ended() -> dict[str, Any]:
    """Return the values every ending sets besides its outcome.

    A root numbers the event of its own end; for another run, `number_event` comes first in the unit.
    """
    is_root = R.root_id == R.id
    return {
        **{name: value() if callable(value) else value for name, value in END_OF_RUN.items()},
        "event_seq": R.event_seq + case((is_root, 1), else_=0),
        "ended_event": case((is_root, R.event_seq + 1), else_=last_event(R.root_id)),
    }


_root = RUNS.alias("root")


def last_event(root_id: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the number of a tree's last event."""
    return select(_root.c.event_seq).where(_root.c.id == root_id).scalar_subquery()


def number_event(*conditions: ColumnElement[bool]) -> Statement:
    """Return the statement that takes a number in the tree `root`, for a run below it.

    The lock on the root's row is held until the commit: numbers grow in the order of commits.
    """
    return Statement(
        update(RUNS)
        .where(R.id == P("root"), R.id != P("run", type_=R.id.type), *conditions)
        .values(event_seq=R.event_seq + 1)
    )


_parent = RUNS.alias("parent")
FINISH = Statement(
    update(RUNS)
    .where(*fence())
    .values(**ENDING_VALUES, **SUMS, **ended())
    .returning(
        R.id,
        select(_parent.c.status).where(_parent.c.id == P("parent", type_=R.id.type)).scalar_subquery(),
        select(_parent.c.owner).where(_parent.c.id == P("parent", type_=R.id.type)).scalar_subquery(),
        R.ended_event,
    )
)
FINISHED = Statement(
    select(R.id, literal_column("NULL"), literal_column("NULL"), R.ended_event).where(
        R.id == P("run"), R.attempt == P("attempt"), R.status == P("status")
    )
)


_ending = RUNS.alias("ending")
is_ours = exists().where(
    _ending.c.id == P("run"), _ending.c.attempt == P("attempt"), _ending.c.status == RunStatus.RUNNING.value
)
NUMBER_END = number_event(is_ours)


def finish_run(
    run_id: str, attempt: int, ending: Ending, *, root_id: str, remembered: Remembered | None = None
) -> Unit:
    """End a run nobody waits for; answers (id, null, null, event number), nothing when it is not ours.

    `remembered` becomes true with it.
    """
    params = {"run": run_id, "attempt": attempt, "parent": None, "root": root_id, **ending.columns()}
    number = (Part(NUMBER_END, params, guard=False),) if root_id != run_id else ()
    return Unit(
        (*number, Part(FINISH, params), *parts_of_end(remembered, params)),
        tuple({root_id: None, run_id: None}),
        order=(root_id, run_id),
        answer=len(number),
        check=Part(FINISHED, params),
        sessions=sessions_of(remembered),
    )
