"""Closing what an ended run has left open: nobody needs its turns and waits any more."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, exists, update

from polos.journal.runs import RUNS
from polos.journal.spending import RESUM
from polos.journal.statements import Part, Statement, Unit, now, one_of
from polos.journal.states import TERMINAL, StepStatus
from polos.journal.steps import STEPS, S
from polos.journal.tables import EventWait

P = bindparam
W = EventWait.__table__.c  # type: ignore[attr-defined]
EVENT_WAITS = EventWait.__table__  # type: ignore[attr-defined]

_ended = RUNS.alias("ended")
_has_ended = exists().where(_ended.c.id == P("run"), one_of(_ended.c.status, TERMINAL))
is_open = one_of(S.status, (StepStatus.SCHEDULED, StepStatus.RUNNING))
_CLOSE_STEPS = Statement(
    update(STEPS)
    .where(S.run_id == P("run"), is_open, _has_ended)
    .values(status=StepStatus.FAILED.value, error=P("error"), ring_at=None, finished_at=now())
    .returning(S.run_id)
)
_DROP_EVENT_WAITS = Statement(delete(EVENT_WAITS).where(W.run_id == P("run"), _has_ended))


def closing_parts(params: dict[str, Any]) -> tuple[Part, ...]:
    """Return what closes the open steps of the run `run`, with `error`, if it has ended.

    A closed step has no outcome (`seq`): it became true for nobody.
    """
    statements = (_CLOSE_STEPS, _DROP_EVENT_WAITS, RESUM)
    return tuple(Part(statement, params, guard=False) for statement in statements)


def close_run(run_id: str) -> Unit:
    """Close what an ended run has left open, if anything; its children have ends of their own."""
    params = {"run": run_id, "error": "the run had ended"}
    return Unit(closing_parts(params), (run_id,), order=(run_id,))
