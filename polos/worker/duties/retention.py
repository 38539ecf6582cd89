"""Removing what is older than it is to be kept."""

from __future__ import annotations

import uuid
from typing import Protocol

from polos import event_data
from polos.journal.allowances import MAX_FORGOTTEN, forget_old_allowances
from polos.journal.leases import take_lease
from polos.journal.retention import MAX_EVENTS, MAX_TREES, READ_OLD_TREES, remove_old_events, remove_tree
from polos.journal.standing_approvals import MAX_REMOVED, remove_old
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.settings import Settings
from polos.worker.duties.desk import Desk

EVERY_SECONDS = 60.0
AGAIN_SECONDS = 0.5  # when there was more than one batch
LEASE_SECONDS = 150.0


class Journal(Protocol):
    """Reads and commits."""

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""

    def do(self, unit: Unit) -> Rows:
        """Commit a unit."""


class RemoveOldRuns:
    """Removes what is old in small batches: runs, events, approvals, allowances. One sweeper at a time."""

    every_seconds = EVERY_SECONDS

    def __init__(self) -> None:
        self._me = uuid.uuid4().hex

    def do(self, desk: Desk) -> float | None:
        """Remove one batch; say when to come again if there is more."""
        days = days_kept(desk.settings)
        standing = desk.settings.standing_approval_days
        if not desk.do(take_lease("retention", self._me, seconds=LEASE_SECONDS)):
            return None
        trees = remove_trees(desk, days)
        events = len(desk.do(remove_old_events(days["events"]))) if days["events"] else 0
        approvals = len(desk.do(remove_old(standing))) if standing else 0
        allowances = len(desk.do(forget_old_allowances()))
        is_more = (
            trees == MAX_TREES
            or events == MAX_EVENTS
            or approvals == MAX_REMOVED
            or allowances == MAX_FORGOTTEN
        )
        return AGAIN_SECONDS if is_more else None


def days_kept(settings: Settings) -> dict[str, float]:
    """Return for how many days each kind of thing is kept, 0 for ever."""
    general = settings.retention_days

    def days(own: float | None) -> float:
        return general if own is None else own

    return {
        "completed": days(settings.retention_days_completed),
        "failed": days(settings.retention_days_failed),
        "cancelled": days(settings.retention_days_cancelled),
        "events": general,
    }


def remove_trees(journal: Journal, days: dict[str, float], *, limit: int = MAX_TREES) -> int:
    """Remove up to `limit` old trees, one transaction each; return how many there were."""
    kept = {name: days[name] for name in ("completed", "failed", "cancelled")}
    least = min((value for value in kept.values() if value), default=0.0)
    found = journal.read(READ_OLD_TREES, {**kept, "least": least, "limit": limit}) if least else []
    for root_id, project, root_name in found:
        topic = event_data.topic_of(root_name, root_id)
        journal.do(remove_tree(root_id, project=project, topic=topic, days=kept))
    return len(found)
