"""Ringing what nobody claimed in time."""

from __future__ import annotations

from polos.dispatch import Doorbell
from polos.journal.recovery import (
    READ_ANY_DUE,
    drop_turns_of_ended_runs,
    due_runs,
    due_turns,
    wake_overdue,
)
from polos.routes import turn_label
from polos.worker.duties.desk import Desk


class WakeOverdueRuns:
    """Wakes runs that are parked while a model answers, and out of time."""

    every_seconds = 1.0

    def do(self, desk: Desk) -> None:
        """Wake them; they are due to be rung."""
        desk.do(wake_overdue())


class RingWhatIsDue:
    """Rings runs and turns whose doorbell is due, with growing pauses."""

    every_seconds = 0.0

    def do(self, desk: Desk) -> None:
        """Ring up to MAX_ROWS runs and turns."""
        [(runs_due, steps_due)] = desk.read(READ_ANY_DUE)
        if runs_due:
            self._ring_runs(desk)
        if steps_due:
            desk.do(drop_turns_of_ended_runs())
            self._ring_turns(desk)

    def _ring_runs(self, desk: Desk) -> None:
        for run_id, name, route, deployment, parent in desk.do(due_runs(**_pauses(desk))):
            desk.ring(Doorbell(run_id, name, route, deployment, begun=parent is not None))

    def _ring_turns(self, desk: Desk) -> None:
        for run_id, step, name, route, deployment in desk.do(due_turns(**_pauses(desk))):
            route = desk.routes.of_turn(name, route)
            desk.ring(Doorbell(run_id, turn_label(name), route, deployment, step=step, begun=True))


def _pauses(desk: Desk) -> dict[str, float]:
    return {
        "ring_again": desk.settings.ring_again_seconds,
        "ring_again_max": desk.settings.ring_again_max_seconds,
    }
