"""Units and reads on event triggers: declare, fire. A cursor moves in one transaction with what it starts."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import (
    and_,
    bindparam,
    case,
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

from polos.journal.events import TOPICS, E, T
from polos.journal.precedence import left_behind, may_take
from polos.journal.runs import NewRun, R
from polos.journal.starts import fail_if, start_if, start_params
from polos.journal.statements import Part, Row, Statement, Unit, now, texts_of
from polos.journal.tables import Trigger

G = Trigger.__table__.c  # type: ignore[attr-defined]
TRIGGERS = Trigger.__table__  # type: ignore[attr-defined]
P = bindparam
MAX_EVENTS = 100  # of single runs started in one transaction
_SPACE = uuid.UUID("a4d1f2b6-54d3-4f43-93f7-8d7f3c1c9b52")


@dataclass(frozen=True)
class NewTrigger:
    """A trigger to enter. `from_beginning` (0 or 1) counts when it is first created."""

    project: str
    workflow: str
    topic: str
    deployment: str
    kind: str
    queue: str
    route: str
    batch_size: int
    batch_timeout_seconds: float | None
    from_beginning: int = 0
    declared_by: str | None = None


@dataclass(frozen=True)
class DueTrigger:
    """A trigger with events that it has not read. `now` is the database's clock."""

    project: str
    workflow: str
    topic: str
    declared_by: str | None
    deployment: str
    kind: str
    queue: str
    route: str
    batch_size: int
    batch_timeout_seconds: float | None
    cursor: int
    head: int
    now: float

    @property
    def is_single(self) -> bool:
        """Whether each event starts a run of its own."""
        return self.batch_size == 1 and self.batch_timeout_seconds is None

    def run_id(self, first: int, last: int) -> str:
        """Return the id of the run of these events: whoever starts it, it is the same run."""
        return str(uuid.uuid5(_SPACE, f"{self.project}\0{self.workflow}\0{self.topic}\0{first}\0{last}"))


# -- declared

_head = (
    select(TOPICS.c.event_seq)
    .where(TOPICS.c.project == P("project"), TOPICS.c.name == P("topic"))
    .scalar_subquery()
)
_GIVEN = ("declared_by", "deployment", "kind", "queue", "route", "batch_size", "batch_timeout_seconds")
_DECLARE = Statement(
    upsert(TRIGGERS)
    .values(
        **{spec.name: P(spec.name, type_=G[spec.name].type) for spec in fields(NewTrigger) if spec.name in G},
        cursor=case((P("from_beginning", type_=G.cursor.type) == 1, 0), else_=func.coalesce(_head, 0)),
        is_active=literal(1),
        created_at=now(),
    )
    .on_conflict_do_update(
        index_elements=["project", "workflow", "topic"],
        set_={**{name: P(name, type_=G[name].type) for name in _GIVEN}, "is_active": literal(1)},
        where=may_take("event_trigger"),
    )
    .returning(G.cursor)
)
_WITHDRAW = Statement(
    update(TRIGGERS)
    .where(
        G.project == P("project"),
        G.is_active == 1,
        G.declared_by.is_not(None),
        or_(
            and_(
                G.workflow.op("IN")(texts_of(P("offered", type_=G.workflow.type))),
                (G.workflow + literal_column("'\n'") + G.topic).op("NOT IN")(
                    texts_of(P("declared", type_=G.workflow.type))
                ),
                may_take("event_trigger"),
            ),
            left_behind("event_trigger"),
        ),
    )
    .values(is_active=0)
    .returning(G.workflow, G.topic)
)


def declare_trigger(new: NewTrigger, *, silence: float) -> Unit:
    """Create a trigger at the head of its topic, or change it, where no newer deployment has the say."""
    params = {**vars(new), "silence": silence}
    return Unit((Part(_DECLARE, params),), (), order=(new.workflow, new.topic))


_DELETE = Statement(
    delete(TRIGGERS)
    .where(G.project == P("project"), G.workflow == P("workflow"), G.topic == P("topic"))
    .returning(G.cursor)
)


def delete_trigger(project: str, workflow: str, topic: str) -> Unit:
    """Forget a trigger and its place in the topic; answers nothing when there is none such."""
    params = {"project": project, "workflow": workflow, "topic": topic}
    return Unit((Part(_DELETE, params),), (), order=(workflow, topic))


def declared_name(workflow: str, topic: str) -> str:
    """Return how `withdraw_triggers` is told of a trigger."""
    return f"{workflow}\n{topic}"


def withdraw_triggers(project: str, *, deployment: str, offered: str, declared: str, silence: float) -> Unit:
    """Deactivate what code declared once and does not any more; answers (workflow, topic) of each.

    Their cursors stay: one that is declared again goes on where it was.

    Args:
        project: Whose.
        deployment: Whose worker starts.
        offered: JSON list of the workflows it offers.
        declared: JSON list of the names (`declared_name`) of the triggers it declares.
        silence: Seconds after which a worker counts as gone.
    """
    params = {
        "project": project,
        "deployment": deployment,
        "offered": offered,
        "declared": declared,
        "silence": silence,
    }
    return Unit((Part(_WITHDRAW, params),), (), order=(project,))


# -- firing

_DUE_COLUMNS = [
    {"head": T.event_seq, "now": now()}.get(spec.name, G.get(spec.name)) for spec in fields(DueTrigger)
]
_due = (
    select(*_DUE_COLUMNS)
    .join_from(TRIGGERS, TOPICS, and_(T.project == G.project, T.name == G.topic))
    .where(G.is_active == 1, T.event_seq > G.cursor)
    .order_by(G.project, G.workflow, G.topic)
)
READ_DUE_TRIGGERS = Statement(_due)
READ_DUE_TRIGGERS_OF_TOPIC = Statement(_due.where(G.project == P("project"), G.topic == P("topic")))
READ_ACTIVE_TOPICS = Statement(select(G.project, G.topic).where(G.is_active == 1).distinct())
READ_UNREAD = Statement(
    select(E.number, E.type, E.data, E.created_at, E.hops)
    .where(E.project == P("project"), E.topic == P("topic"), E.number > P("cursor"))
    .order_by(E.number)
    .limit(P("limit"))
)
_MOVE_ON = Statement(
    update(TRIGGERS)
    .where(
        G.project == P("project"),
        G.workflow == P("workflow"),
        G.topic == P("topic"),
        G.cursor == P("from"),
        G.is_active == 1,
    )
    .values(cursor=P("to", type_=G.cursor.type), last_run_id=P("last_run", type_=G.last_run_id.type))
    .returning(G.cursor)
)
_is_mine = exists().where(
    G.project == P("project"),
    G.workflow == P("name"),
    G.topic == P("topic"),
    G.last_run_id == P("last_run"),
)
_START = start_if(_is_mine)
_FAIL = fail_if(_is_mine)


@dataclass(frozen=True)
class TriggeredRun:
    """A run that events start; with an `error`, it fails before it begins."""

    new: NewRun
    error: str | None = None


def fire_trigger(
    due: DueTrigger, runs: Sequence[TriggeredRun], *, to: int, ring_again: float, window: int
) -> Unit:
    """Start runs and move the cursor on; answers nothing if others did. Without runs it only moves on."""
    params = {
        "project": due.project,
        "workflow": due.workflow,
        "topic": due.topic,
        "from": due.cursor,
        "to": to,
        "last_run": runs[-1].new.id if runs else None,
    }
    parts = [Part(_MOVE_ON, params)]
    for place, run in enumerate(runs):
        values = {
            **start_params(run.new, ring_again=ring_again, window=window, place=place),
            **params,
            "error": run.error,
        }
        parts.append(Part(_FAIL if run.error else _START, values, guard=False))
    ids = tuple(run.new.id for run in runs)
    return Unit(tuple(parts), ids[:1], order=(due.workflow, due.topic))


READ_STARTED = Statement(
    select(R.id, R.slot).where(
        R.id.op("IN")(texts_of(P("runs", type_=R.id.type))), R.attempt == 0, R.finished_at.is_(None)
    )
)


def due_trigger(row: Row) -> DueTrigger:
    """Return a row of READ_DUE_TRIGGERS."""
    return DueTrigger(*row)


READ_TRIGGERS = Statement(
    select(*TRIGGERS.c, T.event_seq)
    .join_from(TRIGGERS, TOPICS, and_(T.project == G.project, T.name == G.topic), isouter=True)
    .where(G.project == P("project"))
    .order_by(G.topic, G.workflow)
)


def trigger_record(row: Row) -> dict[str, Any]:
    """Return a row of READ_TRIGGERS by column name, with the ``head`` of its topic."""
    return dict(zip([*(column.name for column in TRIGGERS.c), "head"], row, strict=True))
