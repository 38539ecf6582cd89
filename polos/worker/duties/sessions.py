"""Removing what agents remember of sessions that nobody has used for long, and what was deleted."""

from __future__ import annotations

import uuid
from typing import NamedTuple

from polos.journal.forgetting import (
    MAX_SESSIONS,
    READ_EMPTY_SESSIONS,
    READ_FORGOTTEN,
    READ_OLD_SESSIONS,
    forget_old,
    remove_empty,
    remove_forgotten,
)
from polos.journal.leases import take_lease
from polos.journal.memory import SessionKey
from polos.journal.statements import Statement
from polos.worker.duties.desk import Desk
from polos.worker.duties.retention import AGAIN_SECONDS, EVERY_SECONDS, LEASE_SECONDS, Journal


class RemoveOldSessions:
    """Removes memories in small batches; one sweeper at a time does. Nothing a live run has loaded goes."""

    every_seconds = EVERY_SECONDS

    def __init__(self) -> None:
        self._me = uuid.uuid4().hex

    def do(self, desk: Desk) -> float | None:
        """Remove one batch; say when to come again if there is more."""
        if not desk.do(take_lease("sessions", self._me, seconds=LEASE_SECONDS)):
            return None
        found = remove_sessions(desk, desk.settings.session_retention_days)
        return AGAIN_SECONDS if found.is_more else None


class Removed(NamedTuple):
    """Of how many memories the rows went, and whether there may be more."""

    memories: int
    is_more: bool


def remove_sessions(journal: Journal, days: float) -> Removed:
    """Remove up to `MAX_SESSIONS` memories.

    `days`: since the last use; 0 for ever, then only what was deleted goes.
    """
    old = _keys(journal, READ_OLD_SESSIONS, days=days) if days else []
    for key in old:
        journal.do(forget_old(key, uuid.uuid4().hex, days=days))
    forgotten = _keys(journal, READ_FORGOTTEN)
    count = sum(bool(journal.do(remove_forgotten(key))) for key in forgotten)
    empty = _keys(journal, READ_EMPTY_SESSIONS, days=days) if days else []
    for key in empty:
        journal.do(remove_empty(key, days=days))
    return Removed(count, is_more=MAX_SESSIONS in map(len, (old, forgotten, empty)))


def _keys(journal: Journal, statement: Statement, **params: float) -> list[SessionKey]:
    rows = journal.read(statement, {"limit": MAX_SESSIONS, **params})
    return [SessionKey(*row) for row in rows]
