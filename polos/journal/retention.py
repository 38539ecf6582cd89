"""Removing trees of runs, and events, that are older than they are kept. Nothing of a live tree goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    tuple_,
)

from polos.journal.closing import EVENT_WAITS
from polos.journal.closing import W as EW
from polos.journal.events import EVENTS, E, T
from polos.journal.runs import RUNS, R
from polos.journal.statements import Part, Statement, Unit, now, one_of
from polos.journal.states import TERMINAL, RunStatus
from polos.journal.steps import STEPS, S
from polos.journal.tables import Trigger
from polos.journal.usage import keep_usage

P = bindparam
G = Trigger.__table__.c  # type: ignore[attr-defined]
MAX_TREES = 50  # at a time
MAX_EVENTS = 500

_DAY: ColumnElement[float] = literal_column("86400.0")
_kept_days = case(
    (R.status == RunStatus.COMPLETED.value, P("completed", type_=Float)),
    (R.status == RunStatus.FAILED.value, P("failed", type_=Float)),
    else_=P("cancelled", type_=Float),
)
_is_old = (
    R.parent_id.is_(None),
    R.finished_at.is_not(None),
    _kept_days > 0,
    R.finished_at < now() - _kept_days * _DAY,
)
_member = RUNS.alias("member")
# The youngest end in the tree counts: a child that was only started may have gone on for long.
_is_all_old = ~exists().where(
    _member.c.root_id == R.id,
    or_(
        _member.c.finished_at.is_(None),
        _member.c.finished_at >= now() - _kept_days * _DAY,
        ~one_of(_member.c.status, TERMINAL),
    ),
)
READ_OLD_TREES = Statement(
    select(R.id, R.project, R.root_name)
    .where(
        *_is_old,
        R.finished_at < select(now() - P("least", type_=Float) * _DAY).scalar_subquery(),  # along the index
        _is_all_old,
    )
    .order_by(R.finished_at)
    .limit(P("limit"))
)
COUNT_OLD_TREES = Statement(select(func.count()).select_from(RUNS).where(*_is_old, _is_all_old))

_REMOVE_ROOT = Statement(delete(RUNS).where(R.id == P("root"), *_is_old, _is_all_old).returning(R.id))
_root = RUNS.alias("removed_root")
_is_removed = ~exists().where(_root.c.id == P("root"))
_below = select(_member.c.id).where(_member.c.root_id == P("root"))
# What the tree's turns used outlives them, summed up by day: added once, as the steps go once.
_KEEP_USAGE = keep_usage(or_(S.run_id == P("root"), S.run_id.in_(_below)), _is_removed)
_REMOVE_STEPS = Statement(delete(STEPS).where(or_(S.run_id == P("root"), S.run_id.in_(_below)), _is_removed))
_REMOVE_WAITS = Statement(
    delete(EVENT_WAITS).where(or_(EW.run_id == P("root"), EW.run_id.in_(_below)), _is_removed)
)
_REMOVE_EVENTS = Statement(
    delete(EVENTS).where(E.project == P("project"), E.topic == P("topic"), _is_removed)
)
_REMOVE_RUNS = Statement(delete(RUNS).where(R.root_id == P("root"), _is_removed))


def remove_tree(root_id: str, *, project: str, topic: str, days: Mapping[str, float]) -> Unit:
    """Remove a tree whose runs have all ended long ago; answers (id,), or nothing when one has not.

    `days`: how long ``completed``, ``failed`` and ``cancelled`` trees are kept; 0 for ever.
    """
    params: dict[str, Any] = {"root": root_id, "project": project, "topic": topic, **days}
    rest = (_KEEP_USAGE, _REMOVE_STEPS, _REMOVE_WAITS, _REMOVE_EVENTS, _REMOVE_RUNS)
    return Unit(
        (Part(_REMOVE_ROOT, params), *(Part(statement, params, guard=False) for statement in rest)),
        (root_id,),
        order=(root_id,),
        locks_first=True,
    )


_old_event = EVENTS.alias("old_event")
_is_of_program = exists().where(T.project == _old_event.c.project, T.name == _old_event.c.topic)
_is_still_read = exists().where(
    G.project == _old_event.c.project,
    G.topic == _old_event.c.topic,
    G.is_active == 1,
    G.cursor < _old_event.c.number,
)
_is_awaited = exists().where(
    EW.project == _old_event.c.project, EW.topic == _old_event.c.topic, EW.number == _old_event.c.number
)
_KEY = (E.project, E.topic, E.number)
_REMOVE_OLD_EVENTS = Statement(
    delete(EVENTS)
    .where(
        tuple_(*_KEY).in_(
            select(*(_old_event.c[column.name] for column in _KEY))
            .where(
                _old_event.c.created_at < select(now() - P("days", type_=Float) * _DAY).scalar_subquery(),
                _is_of_program,
                ~_is_still_read,
                ~_is_awaited,
            )
            .order_by(_old_event.c.created_at)
            .limit(P("limit"))
            .with_for_update(skip_locked=True)
        )
    )
    .returning(E.number)
)


def remove_old_events(days: float, *, limit: int = MAX_EVENTS) -> Unit:
    """Remove events of programs' own topics that no trigger has still to read; answers a row for each."""
    return Unit((Part(_REMOVE_OLD_EVENTS, {"days": days, "limit": limit}),), ())
