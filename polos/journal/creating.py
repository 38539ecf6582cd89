"""Creating root runs: whether one is rung at once, or waits to be admitted, is decided in the INSERT."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Integer,
    bindparam,
    case,
    exists,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import insert as upsert  # ON CONFLICT; SQLite compiles it too

from polos.journal.runs import RUNS, NewRun, Q, R, ringing_from_now
from polos.journal.statements import Part, Statement, Unit, latest, now
from polos.journal.states import QueueSlot, RunStatus

P = bindparam
# In the text: psycopg takes statements with more than 50 parameters apart anew each time.
_CONSTANT = literal_column
_DEFERRED: ColumnElement[str] = _CONSTANT(f"'{QueueSlot.DEFERRED}'")
PLACE_SECONDS = 1e-6  # between runs that one caller creates together: their order is kept
DOORBELLS_PER_ROUTE = 100
COUNTERS = (
    "attempt",
    "event_seq",
    "seq",
    "wakes",
    "crashes",
    "retries",
    "rings",
    "running_seconds",
    "input_tokens",
    "output_tokens",
    "total_tokens",
)


def has_limits() -> ColumnElement[bool]:
    """Return the condition that a row of the queue table limits anything."""
    return or_(Q.concurrency_limit.is_not(None), Q.rate_limit.is_not(None), Q.is_paused == _CONSTANT("1"))


def _place_of(table: Any) -> tuple[ColumnElement[bool], ...]:
    return (
        table.c.project == P("project"),
        table.c.deployment == P("deployment"),
        table.c.route == P("route"),
    )


def is_rung(table: Any) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of the index over root runs whose doorbell is outstanding."""
    return (
        table.c.status == literal_column("'queued'"),
        table.c.ring_at.is_not(None),
        table.c.parent_id.is_(None),
        table.c.not_before.is_(None),
    )


def is_deferred(table: Any) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of the index over deferred runs that are pending."""
    return (table.c.slot == literal_column("'deferred'"), table.c.ring_at.is_(None))


_other = RUNS.alias("other")
_rung = RUNS.alias("rung")
_is_limited = exists().where(
    Q.project == P("project"), Q.deployment == P("deployment"), Q.name == P("queue"), has_limits()
)
_is_delayed = P("delay", type_=Float) > _CONSTANT("0")
_has_backlog = exists().where(*is_deferred(_other), *_place_of(_other))
_is_full = exists(
    select(_CONSTANT("1"))
    .where(*is_rung(_rung), *_place_of(_rung))
    .limit(_CONSTANT("1"))
    .offset(latest(P("window", type_=Integer) - _CONSTANT("1"), _CONSTANT("0")))
)
# The offset keeps databases from asking for each use of the answer anew.
_decision = (
    select(
        case(
            (_is_limited, _CONSTANT(f"'{QueueSlot.WANTED}'")),
            (_is_delayed, _DEFERRED),
            (_has_backlog, _DEFERRED),
            (P("window", type_=Integer) < _CONSTANT("1"), None),
            (_is_full, _DEFERRED),
            else_=None,
        ).label("slot")
    )
    .offset(_CONSTANT("0"))
    .subquery("decision")
)
_due = now() + P("delay", type_=Float)
NEW_RUN_COLUMNS: dict[str, Any] = {
    **{spec.name: P(spec.name, type_=R[spec.name].type) for spec in fields(NewRun)},
    **{name: _CONSTANT("0") for name in COUNTERS},
    "status": _CONSTANT(f"'{RunStatus.QUEUED}'"),
    "created_at": now() + P("place", type_=Float) * _CONSTANT(f"{PLACE_SECONDS:.6f}"),
    "slot": _decision.c.slot,
    "not_before": case((_is_delayed, _due), else_=None),
    "ring_at": case((_is_delayed, _due), (_decision.c.slot.is_(None), ringing_from_now()), else_=None),
}
_insert = upsert(RUNS).from_select(
    list(NEW_RUN_COLUMNS),
    select(*NEW_RUN_COLUMNS.values()).where(literal_column("1 = 1")),  # SQLite needs it before ON
)
_CREATE = Statement(_insert.on_conflict_do_nothing().returning(R.id, R.created_at))
_is_quiet = R.not_before.is_not(None)
_CREATE_DEBOUNCED = Statement(
    _insert.on_conflict_do_update(
        index_elements=[R.project, R.deployment, R.name, R.debounce_key],
        index_where=R.debounce_key.is_not(None),
        set_={
            "input": _insert.excluded.input,
            "initial_state": _insert.excluded.initial_state,
            "not_before": case((_is_quiet, _insert.excluded.not_before), else_=None),
            "ring_at": case((_is_quiet, _insert.excluded.ring_at), else_=R.ring_at),
        },
    ).returning(R.id, R.created_at)
)


def create_run(
    new: NewRun,
    *,
    ring_again: float,
    window: int = DOORBELLS_PER_ROUTE,
    delay_seconds: float = 0.0,
    place: int = 0,
) -> Unit:
    """Create a queued run; answers (id, created_at), or nothing when its id or idempotency key exists.

    It is rung by the caller unless its `slot` says that it is pending: its queue has limits, or its route has
    `window` doorbells outstanding. With a `debounce_key` that an unclaimed run has, that run gets the input
    instead, and waits `delay_seconds` from now on; it is the answer then.

    Args:
        new: The run.
        ring_again: After how many seconds sweepers ring, when nobody claims it.
        window: How many doorbells of a route may be outstanding; 0 not to count them this time.
        delay_seconds: It starts no earlier than this from now.
        place: Among runs created together: later ones stand behind.
    """
    params = {
        **new.columns(),
        "ring_again": ring_again,
        "window": window,
        "delay": delay_seconds,
        "place": place,
    }
    statement = _CREATE if new.debounce_key is None else _CREATE_DEBOUNCED
    return Unit((Part(statement, params),), (new.id,), order=(new.root_id,))
