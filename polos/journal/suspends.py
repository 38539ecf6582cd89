"""Units on waits for an answer: ask for one, give it, let it expire. One answer wins, whoever gives it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Float, bindparam, case, exists, literal, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.events import EVENTS, E, hops_of
from polos.journal.runs import FENCE, RUNS, WAKE_VALUES, R, fence, last_event
from polos.journal.statements import Part, Statement, Unit, now, one_of
from polos.journal.states import LIVE, RunStatus, StepStatus
from polos.journal.steps import STEPS, S, insert_step, param

P = bindparam
MAX_EXPIRED = 200  # at a time

_run = RUNS.alias("asking")
_is_fenced = exists().where(
    _run.c.id == P("run"), _run.c.attempt == P("attempt"), _run.c.status == RunStatus.RUNNING.value
)
_asked = STEPS.alias("asked")
_is_asked = exists().where(_asked.c.run_id == P("run"), _asked.c.name == P("name"))
# A unit that is repeated because its answer was lost finds the step: it takes no number and tells nothing.
_NUMBER_QUESTION = Statement(
    update(RUNS).where(R.id == P("root"), _is_fenced, ~_is_asked).values(event_seq=R.event_seq + 1)
)
_ASK = Statement(
    insert_step(
        status=literal(StepStatus.RUNNING.value),
        tries=literal(0),
        input=param("input"),
        event=last_event(P("root", type_=R.id.type)),
        ring_at=case(
            (P("timeout", type_=Float) >= 0, now() + P("timeout", type_=Float)),
            else_=literal_column("NULL"),
        ),
    )
)
_columns = ["project", "topic", "number", "type", "data", "run_id", "hops", "created_at"]


def _event(number: Any, *conditions: Any) -> Any:
    return (
        upsert(EVENTS)
        .from_select(
            _columns,
            select(
                P("project", type_=E.project.type),
                P("topic", type_=E.topic.type),
                number,
                P("event_type", type_=E.type.type),
                P("event_data", type_=E.data.type),
                P("run", type_=E.run_id.type),
                hops_of(P("run", type_=E.run_id.type)),
                now(),
            ).where(*conditions),
        )
        .on_conflict_do_nothing()
    )


_question = STEPS.alias("question")
_TELL_QUESTION = Statement(
    _event(
        _question.c.event,
        _question.c.run_id == P("run"),
        _question.c.name == P("name"),
        _question.c.event.is_not(None),
        _is_fenced,
    ).returning(select(R.seq).where(R.id == P("run")).scalar_subquery(), E.number)
)
_WAS_ASKED = Statement(
    select(R.seq, S.event)
    .join_from(STEPS, RUNS, S.run_id == R.id)
    .where(S.run_id == P("run"), S.name == P("name"), *fence())
)


def suspend(
    run_id: str,
    attempt: int,
    name: str,
    *,
    position: int,
    place: dict[str, str],
    event_type: str,
    event_data: str,
    timeout_seconds: float | None,
) -> Unit:
    """Wait for an answer, and tell that one is wanted; answers (seq, number of the event), or nothing.

    `place` has ``project``, ``root`` and ``topic``.
    """
    params = {
        **place,
        "run": run_id,
        "attempt": attempt,
        "name": name,
        "kind": "suspend",
        "position": position,
        "input": event_data,
        "event_type": event_type,
        "event_data": event_data,
        "timeout": -1.0 if timeout_seconds is None else timeout_seconds,
    }
    parts = (
        Part(FENCE, params),
        Part(_NUMBER_QUESTION, params, guard=False),
        Part(_ASK, params, guard=False),
        Part(_TELL_QUESTION, params, guard=False),
    )
    locks = tuple(dict.fromkeys((place["root"], run_id)))
    return Unit(parts, locks, order=(place["root"], run_id), answer=3, check=Part(_WAS_ASKED, params))


# -- answering

_waiting_step = STEPS.alias("waiting_step")
_waiting_run = RUNS.alias("waiting_run")
_still_waits = exists().where(
    _waiting_step.c.run_id == P("run"),
    _waiting_step.c.name == P("name"),
    _waiting_step.c.kind == "suspend",
    _waiting_step.c.status == StepStatus.RUNNING.value,
    _waiting_run.c.id == P("run"),
    one_of(_waiting_run.c.status, LIVE),
)
_NUMBER_ANSWER = Statement(
    update(RUNS).where(R.id == P("root"), _still_waits).values(event_seq=R.event_seq + 1)
)
_TELL_ANSWER = Statement(_event(last_event(P("root", type_=R.id.type)), _still_waits))
_WAKE = Statement(
    update(RUNS)
    .where(R.id == P("run"), _still_waits)
    .values(**WAKE_VALUES)
    .returning(R.status, R.owner, last_event(P("root", type_=R.id.type)), R.name, R.route, R.deployment)
)
_ANSWER = Statement(
    update(STEPS)
    .where(
        S.run_id == P("run"),
        S.name == P("name"),
        S.kind == "suspend",
        S.status == StepStatus.RUNNING.value,
        exists().where(_waiting_run.c.id == P("run"), one_of(_waiting_run.c.status, LIVE)),
    )
    .values(
        status=P("outcome"),
        output=P("output"),
        error=P("error"),
        seq=select(R.seq).where(R.id == P("run")).scalar_subquery(),
        ring_at=None,
        finished_at=now(),
    )
)


def resume(
    run_id: str,
    name: str,
    *,
    place: dict[str, str],
    output: str,
    event_type: str,
    event_data: str,
    ring_again: float,
) -> Unit:
    """Answer a wait; answers (run status, owner, event number, run name, route, deployment), or nothing.

    Nothing means that it waits no more: somebody else has answered, it has expired, or its run has ended.
    """
    params = {
        **place,
        "run": run_id,
        "name": name,
        "outcome": StepStatus.COMPLETED.value,
        "output": output,
        "error": None,
        "event_type": event_type,
        "event_data": event_data,
        "ring_again": ring_again,
    }
    parts = (
        Part(_NUMBER_ANSWER, params),
        Part(_TELL_ANSWER, params, guard=False),
        Part(_WAKE, params),
        Part(_ANSWER, params, guard=False),
    )
    locks = tuple(dict.fromkeys((place["root"], run_id)))
    return Unit(parts, locks, order=(place["root"], run_id), answer=2, locks_first=True)


def expire(run_id: str, name: str, *, root_id: str, error: str, ring_again: float) -> Unit:
    """End a wait without an answer; answers as `resume`, without an event."""
    params = {
        "run": run_id,
        "root": root_id,
        "name": name,
        "outcome": StepStatus.FAILED.value,
        "output": None,
        "error": error,
        "ring_again": ring_again,
    }
    parts = (Part(_WAKE, params), Part(_ANSWER, params, guard=False))
    return Unit(parts, (run_id,), order=(root_id, run_id), locks_first=True)


_WAITS = (
    S.kind == "suspend",
    S.status == StepStatus.RUNNING.value,
    one_of(R.status, LIVE),
)
WAIT_COLUMNS = ("run_id", "name", "input", "event", "started_at", "ring_at")
READ_WAITS = Statement(
    select(*(S[name] for name in WAIT_COLUMNS), R.name)
    .join_from(STEPS, RUNS, S.run_id == R.id)
    .where(R.root_id == P("root"), *_WAITS)
    .order_by(S.event)
)
READ_WAIT = Statement(
    select(S.status, S.input, S.output, S.error, S.started_at, S.finished_at, S.ring_at, S.run_id)
    .join_from(STEPS, RUNS, S.run_id == R.id)
    .where(R.root_id == P("root"), S.name == P("name"), S.kind == "suspend")
    .order_by(case((S.status == StepStatus.RUNNING.value, 0), else_=1), S.event.desc())
)
_moment = select(now()).scalar_subquery()
READ_EXPIRED = Statement(
    select(S.run_id, S.name, R.root_id, S.started_at, S.ring_at)
    .join_from(STEPS, RUNS, S.run_id == R.id)
    .where(S.ring_at <= _moment, *_WAITS)
    .limit(MAX_EXPIRED)
)
_CLOSE_WAITS = Statement(
    update(STEPS)
    .where(
        S.ring_at <= _moment,
        S.kind == "suspend",
        S.status == StepStatus.RUNNING.value,
        exists().where(R.id == S.run_id, R.finished_at.is_not(None)),
    )
    .values(status=StepStatus.FAILED.value, error="the run had ended", ring_at=None, finished_at=now())
)


def close_waits_of_ended_runs() -> Unit:
    """Close waits that nobody needs any more."""
    return Unit((Part(_CLOSE_WAITS, {}, guard=False),), ())
