"""Starting what events trigger, where the publisher did not, and batches whose time is up."""

from __future__ import annotations

from polos.journal.triggers import READ_ACTIVE_TOPICS
from polos.triggers import fire_triggers
from polos.worker.duties.desk import Desk


class FireTriggers:
    """Starts the runs of events that triggers have not read."""

    every_seconds = 0.0

    def do(self, desk: Desk) -> float | None:
        """Start what is due; return the seconds until a batch is."""
        desk.triggering_topics = frozenset((row[0], row[1]) for row in desk.read(READ_ACTIVE_TOPICS))
        if not desk.triggering_topics:
            return None
        fired = fire_triggers(desk.connect(), desk.settings)
        desk.ring(*fired.bells)
        if fired.pending:
            desk.admit()
        return fired.again_seconds
