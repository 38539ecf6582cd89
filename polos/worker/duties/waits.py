"""Ending waits whose time is up."""

from __future__ import annotations

from polos.dispatch import Doorbell
from polos.journal.states import RunStatus
from polos.journal.suspends import READ_EXPIRED, close_waits_of_ended_runs, expire
from polos.worker.duties.desk import Desk


class EndWaits:
    """Ends waits nobody answered in time; a run that was parked is rung, another looks within a second."""

    every_seconds = 0.0

    def do(self, desk: Desk) -> None:
        """End up to MAX_EXPIRED waits."""
        expired = desk.read(READ_EXPIRED)
        if not expired:
            return
        desk.do(close_waits_of_ended_runs())
        for run_id, name, root_id, asked_at, expired_at in expired:
            error = f"Suspend {name.removeprefix('$')!r} timed out after {expired_at - asked_at:.0f} seconds"
            self._expire(desk, run_id, name, root_id, error)

    def _expire(self, desk: Desk, run_id: str, name: str, root_id: str, error: str) -> None:
        unit = expire(run_id, name, root_id=root_id, error=error, ring_again=desk.settings.ring_again_seconds)
        for status, _, _, run_name, route, deployment in desk.do(unit):
            if status == RunStatus.QUEUED:
                desk.ring(Doorbell(run_id, run_name, route, deployment, begun=True))
