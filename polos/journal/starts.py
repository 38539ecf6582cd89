"""Runs that come into being with something else: a tick of a schedule, or events that trigger them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, bindparam, literal, literal_column, null, select
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.creating import NEW_RUN_COLUMNS
from polos.journal.runs import RUNS, NewRun, R
from polos.journal.statements import Statement, now
from polos.journal.states import RunStatus

P = bindparam
_ENDS_AT_ONCE: Mapping[str, Any] = {
    "status": literal(RunStatus.FAILED.value),
    "error": P("error", type_=R.error.type),
    "slot": null(),
    "not_before": null(),
    "ring_at": null(),
    "finished_at": now(),
    "event_seq": literal_column("1"),  # of its end, which is all there is to tell
    "ended_event": literal_column("1"),
}


def start_if(condition: ColumnElement[bool]) -> Statement:
    """Return the statement that creates a `NewRun` where `condition` holds; answers (id, slot).

    With a slot it is pending: whoever admits it rings. Its parameters are those of `start_params`.
    """
    return _insert(NEW_RUN_COLUMNS, condition)


def fail_if(condition: ColumnElement[bool]) -> Statement:
    """Return the same for a run that has failed before it began, of :error."""
    return _insert({**NEW_RUN_COLUMNS, **_ENDS_AT_ONCE}, condition)


def start_params(new: NewRun, *, ring_again: float, window: int, place: int = 0) -> dict[str, Any]:
    """Return what creates `new`; see `creating.create_run`."""
    return {
        **new.columns(),
        "ring_again": ring_again,
        "window": window,
        "delay": 0.0,
        "place": place,
    }


def _insert(values: Mapping[str, Any], condition: ColumnElement[bool]) -> Statement:
    return Statement(
        upsert(RUNS)
        .from_select(list(values), select(*values.values()).where(condition))
        .on_conflict_do_nothing()
        .returning(R.id, R.slot)
    )
