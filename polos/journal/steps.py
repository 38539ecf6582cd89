"""Units on steps: record an outcome, schedule, claim, complete and retry a turn; reading a run's journal."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Float, and_, bindparam, case, exists, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.runs import (
    FENCE,
    PROGRESS,
    RUNS,
    R,
    fence,
    ringing_from_now,
)
from polos.journal.statements import Part, Row, Rows, Statement, Unit, now
from polos.journal.states import RunStatus, StepStatus
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
    failures: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: float | None = None

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


def _insert(**values: Any) -> Any:
    columns = _new_step(R.id, **values)
    return upsert(STEPS).from_select(list(columns), select(*columns.values()).where(*fence()))


def insert_step(**values: Any) -> Any:
    """Insert a step for the run whose fence holds; an existing row is left alone."""
    return _insert(**values).on_conflict_do_nothing()


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
_recording = RUNS.alias("recording")
_is_fenced = exists().where(
    _recording.c.id == P("run"),
    _recording.c.attempt == P("attempt"),
    _recording.c.status == RunStatus.RUNNING.value,
)


def _counter(column: Any, *conditions: Any) -> Any:
    return select(column).where(_recording.c.id == P("run"), *conditions).scalar_subquery()


_SETTLE = Statement(
    update(STEPS)
    .where(S.run_id == P("run"), S.name == P("name"), S.seq.is_(None), _is_fenced)
    .values(
        **{name: value for name, value in _RECORD.items() if name not in {"started_at", "child_id"}},
        seq=_counter(_recording.c.seq),
        event=_counter(
            _recording.c.event_seq,
            _recording.c.root_id == _recording.c.id,
            P("numbered", type_=R.seq.type) == 1,
        ),
        ring_at=None,
        not_before=None,
    )
    .returning(S.seq, S.event)
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
    has_row: bool = False,
) -> Unit:
    """Store the outcome of a step the coordinator executed itself.

    Answers (seq, number of its event in the tree or None), or nothing when fenced. `seconds` is how long it
    took. `has_row`: it was written before, by `begin_step` or `retry_step_later`.
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
    write = _SETTLE if has_row else _INSERT_OUTCOME
    return Unit(
        (Part(PROGRESS, params), Part(write, params)),
        (run_id,),
        fused=() if has_row else (Part(_RECORD_FUSED, params),),
        order=(run_id, name),
        answer=1,
        check=Part(_RECORDED, params),
    )


_BEGIN = Statement(insert_step(status=literal(StepStatus.RUNNING.value), tries=literal(0)))


def begin_step(run_id: str, attempt: int, name: str, *, position: int) -> Unit:
    """Write a step's row before its function is called; answers (seq,), or nothing when fenced."""
    params = {"run": run_id, "attempt": attempt, "name": name, "kind": "run", "position": position}
    return Unit((Part(FENCE, params), Part(_BEGIN, params, guard=False)), (run_id,), order=(run_id, name))


_later = now() + P("delay", type_=Float)
_RETRY_LATER = Statement(
    _insert(
        status=literal(StepStatus.RUNNING.value),
        tries=param("tries"),
        failures=param("failures"),
        ring_at=_later,
        not_before=_later,
    ).on_conflict_do_update(
        index_elements=["run_id", "name"],
        set_={
            "tries": param("tries"),
            "failures": param("failures"),
            "ring_at": _later,
            "not_before": _later,
        },
        where=and_(STEPS.c.seq.is_(None), _is_fenced),
    )
)


def retry_step_later(
    run_id: str, attempt: int, name: str, *, position: int, tries: int, failures: str, delay: float
) -> Unit:
    """Put a step's next try off for `delay` seconds, its failures on record; answers (seq,), or nothing."""
    params = {
        "run": run_id,
        "attempt": attempt,
        "name": name,
        "kind": "run",
        "position": position,
        "tries": tries,
        "failures": failures,
        "delay": delay,
    }
    parts = (Part(FENCE, params), Part(_RETRY_LATER, params, guard=False))
    return Unit(parts, (run_id,), order=(run_id, name))


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
        fused=(Part(_SCHEDULE_FUSED, params),),
        order=(run_id, name),
    )


READ_STEPS = Statement(select(*STEP_COLUMNS).where(S.run_id == P("run")).order_by(S.seq, S.position))
_FENCE_COLUMNS = (R.attempt, R.seq, R.wakes, R.status, R.owner)
# One statement: a second one might see outcomes of which the first did not know, and is a round trip more.
READ_NEWS = Statement(
    select(*_FENCE_COLUMNS, *STEP_COLUMNS)
    .join_from(RUNS, STEPS, and_(S.run_id == R.id, S.seq > P("after"), S.seq <= R.seq), isouter=True)
    .where(R.id == P("run"))
    .order_by(S.seq)
)


@dataclass(frozen=True)
class News:
    """A run as it is now, and what of it has got an outcome since."""

    attempt: int
    seq: int
    wakes: int
    status: str
    owner: str | None
    outcomes: tuple[StepRow, ...] = ()


NO_RUN = News(0, 0, 0, "", None)


def news_from(rows: Rows) -> News:
    """Return what the rows of READ_NEWS say; `NO_RUN` when the run is gone."""
    if not rows:
        return NO_RUN
    fence = len(_FENCE_COLUMNS)
    steps = (row[fence:] for row in rows)  # without any, one row in which the step is all NULL
    attempt, seq, wakes, status, owner = rows[0][:fence]
    outcomes = tuple(StepRow(*step) for step in steps if step[0] is not None)
    return News(attempt, seq, wakes, status, owner, outcomes)


STEP_DETAILS = list(STEPS.c)
READ_STEP_DETAILS = Statement(select(*STEP_DETAILS).where(S.run_id == P("run")).order_by(S.position, S.name))


def step_details(row: Row) -> dict[str, Any]:
    """Return a row of READ_STEP_DETAILS by column name."""
    return {column.name: value for column, value in zip(STEP_DETAILS, row, strict=True)}


def step_from(row: Row) -> StepRow:
    """Return a row of READ_STEPS."""
    return StepRow(*row)
