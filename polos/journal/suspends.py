"""Units on waits for an answer: ask for one, give it, let it expire. One answer wins, whoever gives it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Float,
    and_,
    bindparam,
    case,
    exists,
    literal,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.ends import last_event
from polos.journal.event_waits import EVENT_WAITS, W
from polos.journal.events import EVENTS, E, hops_of, is_recorded, is_recorded_now
from polos.journal.runs import FENCE, RUNS, WAKE_VALUES, R, fence
from polos.journal.statements import Part, Statement, Unit, now, one_of
from polos.journal.states import LIVE, QueueSlot, RunStatus, StepStatus
from polos.journal.steps import STEPS, S, insert_step, param
from polos.journal.waits import WOKEN, complete_waiting, due_in, end_params, still_waits, wake

P = bindparam

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
        ring_at=due_in(P("timeout", type_=Float)),
        not_before=due_in(P("timeout", type_=Float)),
    )
)
_columns = ["project", "topic", "number", "type", "data", "run_id", "hops", "created_at"]


def _event(number: Any, *conditions: Any) -> Any:
    by = P("by", type_=E.run_id.type)
    values = (
        P("project", type_=E.project.type),
        P("topic", type_=E.topic.type),
        number,
        P("event_type", type_=E.type.type),
        P("event_data", type_=E.data.type),
        by,
        hops_of(by),
        now(),
    )
    return upsert(EVENTS).from_select(_columns, select(*values).where(*conditions)).on_conflict_do_nothing()


_question = STEPS.alias("question")
_TELL_QUESTION = Statement(
    _event(
        _question.c.event,
        _question.c.run_id == P("run"),
        _question.c.name == P("name"),
        _question.c.event.is_not(None),
        _is_fenced,
    )
)
# An answer that came before its question is kept as an event of the tree, for the first that asks.
_is_answer: Any = literal_column("substr(event.type, 1, 7) = 'resume_'")  # as the index of answers says it
_others = STEPS.alias("others")
_their_run = RUNS.alias("their_run")
_has_asked = exists().where(
    _others.c.name == P("asked", type_=S.name.type),
    _others.c.kind == "suspend",
    _their_run.c.id == _others.c.run_id,
    _their_run.c.root_id == P("root"),
)
_kept = {
    "run_id": S.run_id,
    "step": S.name,
    "project": E.project,
    "topic": E.topic,
    "type": E.type,
    "after": E.number - literal_column("1"),
    "number": E.number,
}
_TAKE_KEPT_ANSWER = Statement(
    upsert(EVENT_WAITS)
    .from_select(
        list(_kept),
        select(*_kept.values())
        .select_from(STEPS)
        .join(EVENTS, and_(E.project == P("project"), E.topic == P("topic"), E.type == P("answer_type")))
        .where(
            S.run_id == P("run"),
            S.name == P("name"),
            S.seq.is_(None),
            _is_answer,
            _is_fenced,
            ~_has_asked.where(_others.c.run_id != P("run")),
        )
        .order_by(E.number)
        .limit(1),
    )
    .on_conflict_do_nothing()
)
_WAS_ASKED = Statement(
    select(R.seq, S.event, W.number, S.not_before, S.not_before - now())
    .select_from(STEPS)
    .join(RUNS, S.run_id == R.id)
    .outerjoin(EVENT_WAITS, and_(W.run_id == S.run_id, W.step == S.name))
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
    answer_type: str,
    timeout_seconds: float | None,
) -> Unit:
    """Wait for an answer, and tell that one is wanted.

    Answers (seq, number of the event, number of an answer that is there already, when the wait expires,
    seconds until then), or nothing when fenced. `place` has ``project``, ``root`` and ``topic``.
    """
    params = {
        **place,
        "run": run_id,
        "by": run_id,
        "attempt": attempt,
        "name": name,
        "asked": name,
        "kind": "suspend",
        "position": position,
        "input": event_data,
        "event_type": event_type,
        "event_data": event_data,
        "answer_type": answer_type,
        "timeout": -1.0 if timeout_seconds is None else timeout_seconds,
    }
    statements = (_NUMBER_QUESTION, _ASK, _TELL_QUESTION, _TAKE_KEPT_ANSWER, _WAS_ASKED)
    parts = (Part(FENCE, params), *(Part(statement, params, guard=False) for statement in statements))
    locks = tuple(dict.fromkeys((place["root"], run_id)))
    return Unit(parts, locks, order=(place["root"], run_id), answer=5, check=Part(_WAS_ASKED, params))


# -- answering

_open = STEPS.alias("open_wait")
_open_run = RUNS.alias("open_run")
_only = P("only", type_=S.run_id.type)
_has_kept_answer = exists().where(W.run_id == _open.c.run_id, W.step == _open.c.name, W.number.is_not(None))
_chosen = (
    select(_open.c.run_id)
    .join_from(_open, _open_run, _open_run.c.id == _open.c.run_id)
    .where(
        _open_run.c.root_id == P("root"),
        _open.c.name == P("asked", type_=S.name.type),
        _open.c.kind == "suspend",
        _open.c.status == StepStatus.RUNNING.value,
        one_of(_open_run.c.status, LIVE),
        or_(_only.is_(None), _open.c.run_id == _only),
        ~_has_kept_answer,
    )
    .order_by(_open.c.event)
    .limit(1)
    .correlate(None)
)
_chosen_id = _chosen.scalar_subquery()
_tree_root = RUNS.alias("tree_root")
_live = RUNS.alias("live")  # the root, or what it has started and left behind
_is_early = and_(
    _only.is_(None),
    exists().where(_live.c.root_id == P("root"), one_of(_live.c.status, LIVE)),
    ~_has_asked,
    ~exists().where(E.project == P("project"), E.topic == P("topic"), E.type == P("event_type"), _is_answer),
)


_is_wanted = or_(_chosen.exists(), _is_early)
_answered = RUNS.alias("answered")
_is_parked = _answered.c.status == RunStatus.WAITING.value
_gave_slot_up = and_(_is_parked, _answered.c.slot == QueueSlot.RELEASED.value)
_as_woken = {
    "status": case((_is_parked, RunStatus.QUEUED.value), else_=_answered.c.status),
    "slot": case((_gave_slot_up, QueueSlot.WANTED.value), else_=_answered.c.slot),
}
_WANTED = Statement(
    select(
        _tree_root.c.event_seq + 1,
        _answered.c.id,
        *(_as_woken.get(column.name, _answered.c[column.name]) for column in WOKEN),
    )
    .select_from(_tree_root)
    .outerjoin(_answered, _answered.c.id == _chosen_id)
    .where(_tree_root.c.id == P("root"), _is_wanted)
)


def _answering(condition: Any, condition_once_woken: Any) -> tuple[Statement, ...]:
    """Return the statements that answer the oldest open wait under a key, or keep the answer if it is early.

    The first takes the event's number, the second tells, the third wakes, the fourth ends the wait.
    """
    root = last_event(P("root", type_=R.id.type))
    return (
        Statement(
            update(RUNS).where(R.id == P("root"), _is_wanted, condition).values(event_seq=R.event_seq + 1)
        ),
        Statement(_event(root, _is_wanted, condition)),
        Statement(update(RUNS).where(R.id == _chosen_id, condition).values(**WAKE_VALUES)),
        Statement(
            update(STEPS)
            .where(S.run_id == _chosen_id, S.name == P("asked"), condition_once_woken)
            .values(
                status=StepStatus.COMPLETED.value,
                output=P("answer"),
                seq=select(R.seq).where(R.id == S.run_id).scalar_subquery(),
                ring_at=None,
                finished_at=now(),
            )
        ),
    )


_ANSWER = _answering(true(), true())
# A run may answer itself: its own waking is an outcome behind the step that answers.
_woke_itself = case((_chosen_id == P("run"), literal_column("1")), else_=literal_column("0"))
_ANSWER_BY_STEP = _answering(is_recorded_now, is_recorded(_woke_itself))


def _answer_params(
    name: str,
    place: dict[str, str],
    *,
    only: str | None,
    answer: str,
    event_type: str,
    event_data: str,
    ring_again: float,
) -> dict[str, Any]:
    return {
        **place,
        "asked": name,
        "only": only,
        "answer": answer,
        "event_type": event_type,
        "event_data": event_data,
        "ring_again": ring_again,
    }


def resume(
    run_id: str | None,
    name: str,
    *,
    place: dict[str, str],
    output: str,
    event_type: str,
    event_data: str,
    ring_again: float,
    only: str | None = None,
) -> Unit:
    """Answer the oldest open wait under a name in a tree, or keep the answer if nobody has asked yet.

    Answers (event number, run id, run status, owner, name, route, deployment), where all but the number is
    null for an answer that is kept; or nothing: it comes too late.

    Args:
        run_id: The run that seems to be answered, to lock it in its place; None if there seems to be none.
        name: Of the step.
        place: ``project``, ``root`` and ``topic``.
        output: Of the step, JSON text.
        event_type: Of the event that tells it.
        event_data: JSON text.
        ring_again: After how many seconds a sweeper rings for the run.
        only: Answer this run, nothing else.
    """
    params = {
        **_answer_params(
            name,
            place,
            only=only,
            answer=output,
            event_type=event_type,
            event_data=event_data,
            ring_again=ring_again,
        ),
        "by": run_id,
    }
    locks = tuple(dict.fromkeys((place["root"], run_id or place["root"])))
    parts = (Part(_WANTED, params), *(Part(statement, params, guard=False) for statement in _ANSWER))
    return Unit(parts, locks, order=(place["root"], run_id or ""), locks_first=True)


_ANSWERED_BY_STEP = Statement(
    select(S.seq, E.number)
    .select_from(STEPS)
    .outerjoin(
        EVENTS,
        and_(
            E.project == P("project"),
            E.topic == P("topic"),
            E.number == last_event(P("root", type_=R.id.type)),
            E.type == P("event_type"),
            E.run_id == P("run"),
        ),
    )
    .where(S.run_id == P("run"), S.name == P("name"), S.owner == P("worker"), S.seq.is_not(None))
)


def resume_by_step(
    record: Unit,
    run_id: str | None,
    name: str,
    *,
    place: dict[str, str],
    output: str,
    event_type: str,
    event_data: str,
    ring_again: float,
) -> Unit:
    """Record a step, which `record` does, and answer as `resume`, or do neither.

    Answers (seq, number of the event if the answer was wanted), or nothing when fenced.
    """
    own = record.parts[0].params
    params = {
        **own,
        **_answer_params(
            name,
            place,
            only=None,
            answer=output,
            event_type=event_type,
            event_data=event_data,
            ring_again=ring_again,
        ),
        "by": own["run"],
    }
    parts = (
        *record.parts,
        *(Part(statement, params, guard=False) for statement in (*_ANSWER_BY_STEP, _ANSWERED_BY_STEP)),
    )
    return Unit(
        parts,
        tuple(dict.fromkeys((place["root"], run_id or place["root"], own["run"]))),
        order=(place["root"], run_id or ""),
        answer=len(parts) - 1,
        check=Part(_ANSWERED_BY_STEP, params),
        locks_first=True,
    )


# -- expiring

_no_answer = ~exists().where(W.run_id == P("run"), W.step == P("name"), W.number.is_not(None))
_WAKE_EXPIRED = wake(still_waits, _no_answer)
_EXPIRE = complete_waiting(_no_answer)


def expire(run_id: str, name: str, *, root_id: str, error: str, ring_again: float) -> Unit:
    """End a wait without an answer; answers the columns of `Woken`, or nothing when it waits no more."""
    params = end_params(run_id, name, output=None, error=error, ring_again=ring_again)
    parts = (Part(_WAKE_EXPIRED, params), Part(_EXPIRE, params, guard=False))
    locks = tuple(dict.fromkeys((root_id, run_id)))
    return Unit(parts, locks, order=(root_id, run_id), locks_first=True)


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
READ_ANSWERED = Statement(
    select(R.id, R.status, R.owner, S.output)
    .join_from(STEPS, RUNS, S.run_id == R.id)
    .where(R.root_id == P("root"), S.name == P("name"), S.kind == "suspend", S.output.is_not(None))
)
