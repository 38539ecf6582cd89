"""Units on waits for events: register one, let publications meet it, hand the event over, let it expire.

Whoever publishes sets `event_wait.number` in the transaction of the event, under the lock that numbers the
topic, and touches no waiting run. Handing over is a unit of its own, done by whoever comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Float,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.runs import FENCE, RUNS, R, fence
from polos.journal.statements import Part, Statement, Unit, now
from polos.journal.states import RunStatus, StepStatus
from polos.journal.steps import STEPS, S, insert_step
from polos.journal.tables import Event, EventWait, Topic
from polos.journal.waits import complete_waiting, due_in, end_params, still_waits, wake

P = bindparam
W = EventWait.__table__.c  # type: ignore[attr-defined]
E = Event.__table__.c  # type: ignore[attr-defined]
T = Topic.__table__.c  # type: ignore[attr-defined]
EVENT_WAITS = EventWait.__table__  # type: ignore[attr-defined]
EVENTS = Event.__table__  # type: ignore[attr-defined]
TOPICS = Topic.__table__  # type: ignore[attr-defined]
MAX_MET = 200  # at a time

# -- registering

LOCK_TOPIC = Statement(
    upsert(TOPICS)
    .values(project=P("project"), name=P("topic"), event_seq=0)
    .on_conflict_do_update(index_elements=["project", "name"], set_={"event_seq": TOPICS.c.event_seq})
)
_WAIT = Statement(
    insert_step(
        status=literal(StepStatus.RUNNING.value),
        tries=literal(0),
        ring_at=due_in(P("timeout", type_=Float)),
        not_before=due_in(P("timeout", type_=Float)),
    )
)
_root = RUNS.alias("root")
_head_of_topic = select(T.event_seq).where(T.project == P("project"), T.name == P("topic")).scalar_subquery()
_head_of_tree = select(_root.c.event_seq).where(_root.c.id == P("root")).scalar_subquery()
_run = RUNS.alias("waiting")
_is_fenced = exists().where(
    _run.c.id == P("run"), _run.c.attempt == P("attempt"), _run.c.status == RunStatus.RUNNING.value
)
_type = P("type", type_=W.type.type)
_is_stored = (
    E.project == P("project"),
    E.topic == P("topic"),
    or_(_type.is_(None), E.type == _type),
)


def _first_stored(*conditions: Any) -> Any:
    return select(E.number).where(*_is_stored, *conditions).order_by(E.number).limit(1).scalar_subquery()


def _register(head: Any, number: Any) -> Statement:
    columns: dict[str, Any] = {
        "run_id": S.run_id,
        "step": S.name,
        "project": P("project", type_=W.project.type),
        "topic": P("topic", type_=W.topic.type),
        "type": _type,
        "after": func.coalesce(head, literal_column("0")),
        "number": number,
    }
    waits = and_(S.run_id == P("run"), S.name == P("name"), S.seq.is_(None), _is_fenced)
    return Statement(
        upsert(EVENT_WAITS)
        .from_select(list(columns), select(*columns.values()).select_from(STEPS).where(waits))
        .on_conflict_do_nothing()
    )


_NUMBERS: dict[str, Any] = {
    "": literal(None, type_=W.number.type),
    "number": _first_stored(E.number > P("since", type_=E.number.type)),
    "time": _first_stored(E.created_at > P("since", type_=Float)),
}
_REGISTER = {
    (is_tree, by): _register(_head_of_tree if is_tree else _head_of_topic, number)
    for is_tree in (True, False)
    for by, number in _NUMBERS.items()
}
_REGISTERED = Statement(
    select(R.seq, S.not_before, S.not_before - now(), W.number)
    .select_from(STEPS)
    .join(RUNS, S.run_id == R.id)
    .outerjoin(EVENT_WAITS, and_(W.run_id == S.run_id, W.step == S.name))
    .where(S.run_id == P("run"), S.name == P("name"), *fence())
)


@dataclass(frozen=True)
class Wanted:
    """The event that is waited for. `root_id` is that of the tree whose topic it is, None for other topics.

    Attributes:
        since_number: The earliest stored event after this number counts.
        since_seconds: Or the earliest stored event after this moment.
    """

    project: str
    topic: str
    root_id: str | None
    type: str | None = None
    since_number: int | None = None
    since_seconds: float | None = None


def wait_for_event(
    run_id: str,
    attempt: int,
    name: str,
    wanted: Wanted,
    *,
    position: int,
    timeout_seconds: float | None,
) -> Unit:
    """Wait for an event: the next one, or the first stored one since a number or moment.

    Answers (seq, when it expires, seconds until then, number of the event if it is there), or nothing.
    """
    by = "number" if wanted.since_number is not None else "time" if wanted.since_seconds is not None else ""
    params = {
        "run": run_id,
        "attempt": attempt,
        "name": name,
        "kind": "event",
        "position": position,
        "project": wanted.project,
        "topic": wanted.topic,
        "root": wanted.root_id,
        "type": wanted.type,
        "since": wanted.since_number if by == "number" else wanted.since_seconds,
        "timeout": -1.0 if timeout_seconds is None else timeout_seconds,
    }
    is_tree = wanted.root_id is not None
    parts = (
        Part(FENCE, params),
        *(() if is_tree else (Part(LOCK_TOPIC, params, guard=False),)),
        Part(_WAIT, params, guard=False),
        Part(_REGISTER[is_tree, by], params, guard=False),
        Part(_REGISTERED, params, guard=False),
    )
    return Unit(
        parts,
        tuple(dict.fromkeys((wanted.root_id or run_id, run_id))),
        order=(run_id, name),
        answer=len(parts) - 1,
        check=Part(_REGISTERED, params),
        topics=() if is_tree else ((wanted.project, wanted.topic),),
    )


# -- publications that meet waits


def meet(head: Any) -> Statement:
    """Return the statement that notes, for each open wait, the first of the last `count` events it wants.

    `head` is the number of the last event of the topic.
    """
    first = (
        select(E.number)
        .where(
            E.project == P("project"),
            E.topic == P("topic"),
            E.number > head - P("count", type_=E.number.type),
            E.number > W.after,
            or_(W.type.is_(None), E.type == W.type),
        )
        .order_by(E.number)
        .limit(1)
    )
    return Statement(
        update(EVENT_WAITS)
        .where(
            W.project == P("project"),
            W.topic == P("topic"),
            W.number.is_(None),
            first.exists(),
        )
        .values(number=first.scalar_subquery())
    )


def count_met() -> Any:
    """Return how many waits of a topic have met an event that was not handed over yet."""
    return (
        select(func.count())
        .select_from(EVENT_WAITS)
        .where(W.number.is_not(None), W.project == P("project"), W.topic == P("topic"))
        .scalar_subquery()
    )


# -- handing over, and expiring


@dataclass(frozen=True)
class Met:
    """A wait and the event it has met."""

    run_id: str
    step: str
    kind: str | None
    root_id: str | None
    project: str
    topic: str
    number: int
    type: str | None
    data: str
    created_at: float


_met = (
    select(
        W.run_id,
        W.step,
        S.kind,
        R.root_id,
        W.project,
        W.topic,
        W.number,
        E.type,
        E.data,
        E.created_at,
    )
    .select_from(EVENT_WAITS)
    .join(EVENTS, and_(E.project == W.project, E.topic == W.topic, E.number == W.number))
    .outerjoin(STEPS, and_(S.run_id == W.run_id, S.name == W.step))
    .outerjoin(RUNS, R.id == W.run_id)
    .where(W.number.is_not(None))
    .limit(MAX_MET)
)
READ_MET = Statement(_met)
READ_MET_OF_TOPIC = Statement(_met.where(W.project == P("project"), W.topic == P("topic")))
READ_MET_OF_STEP = Statement(_met.where(W.run_id == P("run"), W.step == P("name")))

_WAKE = wake(still_waits)
_HAND_OVER = complete_waiting()
_this_wait = (W.run_id == P("run"), W.step == P("name"))
_DROP_MET = Statement(delete(EVENT_WAITS).where(*_this_wait, W.number.is_not(None)))


def hand_over(met: Met, output: str, *, ring_again: float) -> Unit:
    """Complete a step with the event it waited for; answers the columns of `Woken`, nothing if it was."""
    params = end_params(met.run_id, met.step, output=output, error=None, ring_again=ring_again)
    parts = (
        Part(_WAKE, params, guard=False),
        Part(_HAND_OVER, params, guard=False),
        Part(_DROP_MET, params, guard=False),
    )
    return Unit(parts, (met.run_id,), order=(met.root_id or "", met.run_id), locks_first=True)


# The row of the wait is dropped first: that waits for a publisher who has just met it, and then finds it met.
_DROP_OPEN = Statement(delete(EVENT_WAITS).where(*_this_wait, W.number.is_(None)))
_is_dropped = ~exists().where(*_this_wait)
_WAKE_EXPIRED = wake(still_waits, _is_dropped)
_EXPIRE = complete_waiting(_is_dropped)


def expire_event_wait(run_id: str, name: str, *, root_id: str, error: str, ring_again: float) -> Unit:
    """End a wait that has met no event; answers as `hand_over`."""
    params = end_params(run_id, name, output=None, error=error, ring_again=ring_again)
    parts = (
        Part(_DROP_OPEN, params, guard=False),
        Part(_WAKE_EXPIRED, params),
        Part(_EXPIRE, params, guard=False),
    )
    return Unit(parts, (run_id,), order=(root_id, run_id), answer=1, locks_first=True)
