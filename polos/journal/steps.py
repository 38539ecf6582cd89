"""Units on steps: record an outcome, schedule, claim, complete and retry a turn; reading a run's journal."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Float, and_, bindparam, case, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.runs import (
    FENCE,
    PROGRESS,
    R,
    fence,
    ringing_from_now,
)
from polos.journal.statements import Part, Row, Statement, Unit, now
from polos.journal.states import StepStatus
from polos.journal.tables import Step

S = Step.__table__.c  # type: ignore[attr-defined]
STEPS = Step.__table__  # type: ignore[attr-defined]
P = bindparam
NUMBERED_KIND = "run"  # steps of other kinds are no events


@dataclass(frozen=True)
class StepRow:
    """A step as a replay reads it. `seq` is None while it has no outcome."""

    name: str
    kind: str
    position: int
    seq: int | None
    status: str
    tries: int
    output: str | None
    output_schema: str | None
    error: str | None
    child_id: str | None

    @property
    def has_outcome(self) -> bool:
        """Whether the step is completed or failed."""
        return self.seq is not None


@dataclass(frozen=True)
class Outcome:
    """How a step ended. Values are JSON text; `failures` lists the failed attempts before."""

    status: StepStatus
    output: str | None = None
    output_schema: str | None = None
    error: str | None = None
    failures: str | None = None


STEP_COLUMNS = [S[spec.name] for spec in fields(StepRow)]


def param(name: str) -> Any:
    """Return a parameter typed like the step column of that name: PostgreSQL wants types in a SELECT list."""
    return P(name, type_=S[name].type)


def _new_step(run_id: Any, **values: Any) -> dict[str, Any]:
    """Return what a new step row is made of, by column name."""
    return {
        "run_id": run_id,
        "name": param("name"),
        "kind": param("kind"),
        "position": param("position"),
        "attempt": literal(0),
        "crashes": literal(0),
        "rings": literal(0),
        "started_at": now(),
        **values,
    }


def insert_step(**values: Any) -> Any:
    """Insert a step for the run whose fence holds; an existing row is left alone."""
    columns = _new_step(R.id, **values)
    return (
        upsert(STEPS)
        .from_select(list(columns), select(*columns.values()).where(*fence()))
        .on_conflict_do_nothing()
    )


def _insert_held(held: Any, **values: Any) -> Any:
    """Insert a step for the run that the CTE `held` fenced; an existing row is left alone."""
    columns = _new_step(P("run", type_=S.run_id.type), **values)
    return (
        upsert(STEPS)
        .from_select(list(columns), select(*columns.values()).select_from(held))
        .on_conflict_do_nothing()
    )


_OUTCOME_VALUES = {
    "status": param("status"),
    "tries": param("tries"),
    "output": param("output"),
    "output_schema": param("output_schema"),
    "error": param("error"),
    "failures": param("failures"),
    "child_id": param("child_id"),
    "finished_at": now(),
}


def _fused(fencing: Statement, **values: Any) -> Statement:
    """Fence and insert as one statement, for databases with data-modifying CTEs."""
    held = fencing.sql.cte("held")  # type: ignore[attr-defined]
    columns = {
        "run_id": param("run"),
        "name": param("name"),
        "kind": param("kind"),
        "position": param("position"),
        "attempt": literal(0),
        "tries": literal(0),
        "crashes": literal(0),
        "rings": literal(0),
        "started_at": now(),
        **{name: held.c.seq if value is R.seq else value for name, value in values.items()},
    }
    columns["run_id"] = P("run", type_=S.run_id.type)
    return Statement(
        upsert(STEPS)
        .from_select(list(columns), select(*columns.values()).select_from(held))
        .on_conflict_do_nothing()
        .returning(S.seq if "seq" in values else literal(0))
    )


_RECORD = {
    **_OUTCOME_VALUES,
    "owner": P("worker", type_=S.owner.type),
    "started_at": now() - P("seconds", type_=Float),
}
_numbers = and_(R.root_id == R.id, P("numbered", type_=R.seq.type) == 1)
_INSERT_OUTCOME = Statement(
    insert_step(**_RECORD, seq=R.seq, event=case((_numbers, R.event_seq), else_=None)).returning(
        S.seq, S.event
    )
)
_progressed = PROGRESS.sql.cte("held")  # type: ignore[attr-defined]
_RECORD_FUSED = Statement(
    _insert_held(_progressed, **_RECORD, seq=_progressed.c.seq, event=_progressed.c.event).returning(
        S.seq, S.event
    )
)
_RECORDED = Statement(
    select(S.seq, S.event).where(
        S.run_id == P("run"), S.name == P("name"), S.owner == P("worker"), S.seq.is_not(None)
    )
)


def record_step(
    run_id: str,
    attempt: int,
    name: str,
    kind: str,
    outcome: Outcome,
    *,
    position: int,
    tries: int,
    worker: str,
    child_id: str | None = None,
    seconds: float = 0.0,
) -> Unit:
    """Store the outcome of a step the coordinator executed itself.

    Answers (seq, number of its event in the tree or None), or nothing when fenced. `seconds` is how long it
    took.
    """
    params = {
        "run": run_id,
        "attempt": attempt,
        "name": name,
        "kind": kind,
        "numbered": int(kind == NUMBERED_KIND),
        "position": position,
        "tries": tries,
        "worker": worker,
        "child_id": child_id,
        "seconds": seconds,
        "status": outcome.status.value,
        "output": outcome.output,
        "output_schema": outcome.output_schema,
        "error": outcome.error,
        "failures": outcome.failures,
    }
    return Unit(
        (Part(PROGRESS, params), Part(_INSERT_OUTCOME, params)),
        (run_id,),
        fused=Part(_RECORD_FUSED, params),
        order=(run_id, name),
        answer=1,
        check=Part(_RECORDED, params),
    )


_SCHEDULE = {
    "status": literal(StepStatus.SCHEDULED.value),
    "tries": literal(0),
    "input": param("input"),
    "ring_at": ringing_from_now(),
}
_INSERT_TURN = Statement(insert_step(**_SCHEDULE))
_fenced = FENCE.sql.cte("held")  # type: ignore[attr-defined]
_SCHEDULE_FUSED = Statement(
    select(_fenced.c.seq).add_cte(_insert_held(_fenced, **_SCHEDULE).cte("scheduled"))
)


def schedule_turn(
    run_id: str, attempt: int, name: str, *, position: int, input_text: str, ring_again: float
) -> Unit:
    """Write a turn for any worker to execute; answers (seq,), or nothing when fenced. The caller rings."""
    params = {
        "run": run_id,
        "attempt": attempt,
        "name": name,
        "kind": "turn",
        "position": position,
        "input": input_text,
        "ring_again": ring_again,
    }
    return Unit(
        (Part(FENCE, params), Part(_INSERT_TURN, params, guard=False)),
        (run_id,),
        fused=Part(_SCHEDULE_FUSED, params),
        order=(run_id, name),
    )


READ_STEPS = Statement(select(*STEP_COLUMNS).where(S.run_id == P("run")).order_by(S.seq, S.position))
READ_OUTCOMES_SINCE = Statement(
    select(*STEP_COLUMNS).where(S.run_id == P("run"), S.seq > P("after"), S.seq <= P("until")).order_by(S.seq)
)
STEP_DETAILS = list(STEPS.c)
READ_STEP_DETAILS = Statement(select(*STEP_DETAILS).where(S.run_id == P("run")).order_by(S.position, S.name))


def step_details(row: Row) -> dict[str, Any]:
    """Return a row of READ_STEP_DETAILS by column name."""
    return {column.name: value for column, value in zip(STEP_DETAILS, row, strict=True)}


def step_from(row: Row) -> StepRow:
    """Return a row of READ_STEPS or READ_OUTCOMES_SINCE."""
    return StepRow(*row)
