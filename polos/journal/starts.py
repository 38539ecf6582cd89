"""Runs that come into being with something else: a tick of a schedule, or events that trigger them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, bindparam, literal, literal_column, select
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.runs import NEW_RUN_VALUES, RUNS, R
from polos.journal.statements import Statement, now
from polos.journal.states import RunStatus

P = bindparam
_ENDS_AT_ONCE: Mapping[str, Any] = {
    "status": RunStatus.FAILED.value,
    "error": P("error", type_=R.error.type),
    "ring_at": None,
    "finished_at": now(),
    "event_seq": literal_column("1"),  # of its end, which is all there is to tell
    "ended_event": literal_column("1"),
}


def start_if(condition: ColumnElement[bool]) -> Statement:
    """Return the statement that creates a `NewRun` where `condition` holds; answers (id,)."""
    return _insert(NEW_RUN_VALUES, condition)


def fail_if(condition: ColumnElement[bool]) -> Statement:
    """Return the same for a run that has failed before it began, of :error."""
    return _insert({**NEW_RUN_VALUES, **_ENDS_AT_ONCE}, condition)


def _insert(values: Mapping[str, Any], condition: ColumnElement[bool]) -> Statement:
    columns = [
        value if isinstance(value, ColumnElement) else literal(value, R[name].type)
        for name, value in values.items()
    ]
    return Statement(
        upsert(RUNS)
        .from_select(list(values), select(*columns).where(condition))
        .on_conflict_do_nothing()
        .returning(R.id)
    )
