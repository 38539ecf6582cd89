"""Numbered events: what programs publish, and the history of a run tree read back from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Float, bindparam, exists, func, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.event_waits import count_met, meet
from polos.journal.runs import RUNS, R
from polos.journal.statements import Part, Statement, Unit, now, one_of, texts_of
from polos.journal.steps import STEPS, S
from polos.journal.tables import Event, Topic

E = Event.__table__.c  # type: ignore[attr-defined]
T = Topic.__table__.c  # type: ignore[attr-defined]
EVENTS = Event.__table__  # type: ignore[attr-defined]
TOPICS = Topic.__table__  # type: ignore[attr-defined]
P = bindparam


@dataclass(frozen=True)
class NewEvent:
    """An event to publish; `data` is JSON text."""

    type: str | None
    data: str
    run_id: str | None = None


# -- publishing

_topic = (T.project == P("project"), T.name == P("topic"))
_COUNT_TOPIC = Statement(
    upsert(TOPICS)
    .values(project=P("project"), name=P("topic"), event_seq=P("count"))
    .on_conflict_do_update(
        index_elements=["project", "name"],
        set_={"event_seq": TOPICS.c.event_seq + P("count", type_=T.event_seq.type)},
    )
)
_COUNT_TREE = Statement(
    update(RUNS)
    .where(R.id == P("root"), R.project == P("project"), R.root_id == R.id)
    .values(event_seq=R.event_seq + P("count", type_=R.event_seq.type))
)
_topic_seq = select(T.event_seq).where(*_topic)
_tree_seq = select(R.event_seq).where(R.id == P("root"), R.project == P("project"), R.root_id == R.id)
_columns = ["project", "topic", "number", "type", "data", "run_id", "hops", "created_at"]


def hops_of(run_id: Any) -> Any:
    """Return the hops of a run, 0 for none."""
    publishing = RUNS.alias("publishing")
    return func.coalesce(
        select(publishing.c.hops).where(publishing.c.id == run_id).scalar_subquery(), literal_column("0")
    )


def _insert(counter: Any, seq: Any) -> Statement:
    values = counter.with_only_columns(
        P("project", type_=E.project.type),
        P("topic", type_=E.topic.type),
        seq - P("back", type_=E.number.type),
        P("type", type_=E.type.type),
        P("data", type_=E.data.type),
        P("by", type_=E.run_id.type),
        hops_of(P("by", type_=E.run_id.type)),
        now(),
    )
    return Statement(upsert(EVENTS).from_select(_columns, values))


_INSERT_IN_TOPIC = _insert(_topic_seq, T.event_seq)
_INSERT_IN_TREE = _insert(_tree_seq, R.event_seq)
_MEET_IN_TOPIC = meet(_topic_seq.scalar_subquery())
_MEET_IN_TREE = meet(_tree_seq.scalar_subquery())
_TOPIC_NOW = Statement(_topic_seq.add_columns(now(), count_met()))
_TREE_NOW = Statement(_tree_seq.add_columns(now(), count_met()))


def publish(project: str, topic: str, events: Sequence[NewEvent]) -> Unit:
    """Publish to a topic of the program's own.

    Answers (number of the last, time, how many waits of the topic have met an event).
    """
    parts = _publication(
        (_COUNT_TOPIC, _INSERT_IN_TOPIC, _MEET_IN_TOPIC, _TOPIC_NOW),
        {"project": project, "topic": topic},
        events,
    )
    return Unit(parts, (), order=(topic,), answer=len(parts) - 1, topics=((project, topic),))


def publish_in_tree(project: str, topic: str, root_id: str, events: Sequence[NewEvent]) -> Unit:
    """Publish to the topic of a run tree; answers as `publish`, or nothing when there is no such tree."""
    parts = _publication(
        (_COUNT_TREE, _INSERT_IN_TREE, _MEET_IN_TREE, _TREE_NOW),
        {"project": project, "topic": topic, "root": root_id},
        events,
    )
    return Unit(parts, (root_id,), order=(topic,), answer=len(parts) - 1)


def _publication(
    statements: tuple[Statement, Statement, Statement, Statement],
    place: dict[str, str],
    events: Sequence[NewEvent],
) -> tuple[Part, ...]:
    count, insert, meet_waits, answer = statements
    whole = {**place, "count": len(events)}
    parts = [Part(count, whole)]
    for index, event in enumerate(events):
        row = {"back": len(events) - 1 - index, "type": event.type, "data": event.data, "by": event.run_id}
        parts.append(Part(insert, {**place, **row}, guard=False))
    return (*parts, Part(meet_waits, whole, guard=False), Part(answer, whole, guard=False))


# -- publishing as a step of a run

_step = STEPS.alias("published")
_publisher = RUNS.alias("publisher")


def is_recorded(raised: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether this unit has recorded step `name`, and has raised its run's seq so often since.

    When a unit is repeated because its answer was lost, the step has an older seq: nothing is published.
    """
    return exists().where(
        _step.c.run_id == P("run"),
        _step.c.name == P("name"),
        _publisher.c.id == P("run"),
        _publisher.c.attempt == P("attempt"),
        _publisher.c.seq == _step.c.seq + raised,
    )


is_recorded_now = is_recorded(literal_column("0"))
_COUNT_TOPIC_BY_STEP = Statement(
    upsert(TOPICS)
    .from_select(
        ["project", "name", "event_seq"],
        select(P("project", type_=T.project.type), P("topic", type_=T.name.type), literal_column("1")).where(
            is_recorded_now
        ),
    )
    .on_conflict_do_update(
        index_elements=["project", "name"], set_={"event_seq": TOPICS.c.event_seq + literal_column("1")}
    )
)
_COUNT_TREE_BY_STEP = Statement(
    update(RUNS).where(R.id == P("root"), is_recorded_now).values(event_seq=R.event_seq + 1)
)


def _insert_by_step(counter: Any, seq: Any) -> Statement:
    values = counter.where(is_recorded_now).with_only_columns(
        P("project", type_=E.project.type),
        P("topic", type_=E.topic.type),
        seq,
        P("type", type_=E.type.type),
        P("data", type_=E.data.type),
        P("run", type_=E.run_id.type),
        hops_of(P("run", type_=E.run_id.type)),
        now(),
    )
    return Statement(upsert(EVENTS).from_select(_columns, values))


def _published_by_step(seq: Any) -> Statement:
    return Statement(
        select(_publisher.c.seq, seq.scalar_subquery(), count_met()).where(
            _publisher.c.id == P("run"), is_recorded_now
        )
    )


_INSERT_IN_TOPIC_BY_STEP = _insert_by_step(_topic_seq, T.event_seq)
_INSERT_IN_TREE_BY_STEP = _insert_by_step(_tree_seq, R.event_seq)
_IN_TOPIC_BY_STEP = _published_by_step(_topic_seq)
_IN_TREE_BY_STEP = _published_by_step(_tree_seq)
_RECORDED = Statement(
    select(S.seq, literal_column("0"), literal_column("1")).where(
        S.run_id == P("run"), S.name == P("name"), S.owner == P("worker"), S.seq.is_not(None)
    )
)


def publish_by_step(
    record: Unit, event: NewEvent, *, project: str, topic: str, root_id: str, is_tree: bool
) -> Unit:
    """Record a step, which `record` does, and publish its event, or neither.

    Answers (seq, number of the event, how many waits of the topic have met an event), or nothing when fenced.
    A repeated unit answers number 0.
    """
    params = {
        **record.parts[0].params,
        "project": project,
        "topic": topic,
        "root": root_id,
        "type": event.type,
        "data": event.data,
        "count": 1,
    }
    statements = (
        (_COUNT_TREE_BY_STEP, _INSERT_IN_TREE_BY_STEP, _MEET_IN_TREE, _IN_TREE_BY_STEP)
        if is_tree
        else (_COUNT_TOPIC_BY_STEP, _INSERT_IN_TOPIC_BY_STEP, _MEET_IN_TOPIC, _IN_TOPIC_BY_STEP)
    )
    parts = (*record.parts, *(Part(statement, params, guard=False) for statement in statements))
    run_id = params["run"]
    return Unit(
        parts,
        tuple(dict.fromkeys((root_id, run_id))) if is_tree else (run_id,),
        order=(root_id, run_id),
        answer=len(parts) - 1,
        check=Part(_RECORDED, params),
        topics=() if is_tree else ((project, topic),),
    )


READ_TOPIC = Statement(
    select(E.number, E.type, E.data, E.run_id, E.created_at)
    .where(E.project == P("project"), E.topic == P("topic"), E.number > P("after"))
    .order_by(E.number)
    .limit(P("limit"))
)
READ_TOPIC_BACKWARDS = Statement(
    select(E.number, E.type, E.data, E.run_id, E.created_at)
    .where(E.project == P("project"), E.topic == P("topic"), E.number > P("after"))
    .order_by(E.number.desc())
    .limit(P("limit"))
)
READ_TOPIC_HEAD = Statement(select(T.event_seq).where(*_topic))
READ_TOPIC_AT = Statement(
    select(func.max(E.number)).where(
        E.project == P("project"), E.topic == P("topic"), E.created_at <= P("time", type_=Float)
    )
)

# -- reading a tree

_head = RUNS.alias("head")
READ_HEADS = Statement(
    select(R.id, _head.c.event_seq, now(), R.ended_event)
    .join_from(RUNS, _head, _head.c.id == R.root_id)
    .where(R.id.op("IN")(texts_of(P("runs", type_=R.id.type))))
)
HISTORY_RUN = (
    "id",
    "kind",
    "name",
    "status",
    "started_event",
    "ended_event",
    "started_at",
    "finished_at",
    "input",
    "output",
    "error",
    "cancelled_by",
)
READ_TREE_RUNS = Statement(
    select(*(R[name] for name in HISTORY_RUN))
    .where(
        R.root_id == P("root"),
        or_(
            R.started_event > P("after"),
            R.ended_event > P("after"),
            R.started_at > P("since", type_=Float),
        ),
    )
    .order_by(R.created_at, R.id)
)
_STEP = ("run_id", "name", "kind", "status", "event", "attempt", "input", "output", "error")
HISTORY_STEP = (*_STEP, "started_at", "finished_at", "run_name", "run_started_at")
READ_TREE_STEPS = Statement(
    select(*(S[name] for name in _STEP), S.started_at, S.finished_at, R.name, R.started_at)
    .join_from(STEPS, RUNS, S.run_id == R.id)
    .where(
        R.root_id == P("root"),
        one_of(S.kind, ("run", "turn")),
        or_(R.forked_from.is_(None), S.owner.is_not(None), S.seq.is_(None)),  # not what a fork has copied
        or_(
            S.event > P("after"),
            S.finished_at > P("since", type_=Float),
            S.started_at > P("since", type_=Float),
        ),
    )
    .order_by(S.finished_at, S.run_id, S.position)
)
READ_TREE_EVENTS = Statement(
    select(E.number, E.type, E.data, E.run_id, E.created_at)
    .where(E.project == P("project"), E.topic == P("topic"), E.number > P("after"))
    .order_by(E.number)
)
