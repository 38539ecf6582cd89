"""Ending waits whose time has come, and handing events to the runs that wait for them."""

from __future__ import annotations

from collections.abc import Sequence

from polos.dispatch import Doorbell
from polos.engine.timers import ending_of
from polos.journal.closing import close_run
from polos.journal.event_waits import MAX_MET, READ_MET, Met
from polos.journal.statements import Rows, Unit
from polos.journal.waits import COUNT_RUNG, MAX_DUE, READ_NEXT_DUE, DueWait, Woken, due_from, take_due
from polos.waits import handing_over
from polos.worker.duties.desk import Desk

MAX_ROUNDS = 4  # of MAX_DUE waits each in one go: other duties have their turn in between
# Woken runs whose doorbells are unclaimed. More would only wait in the broker, and be rung again meanwhile.
MAX_UNCLAIMED = 1000
CHOKED_SECONDS = 0.05  # until there is room, perhaps
MAX_UNITS = 200  # in one transaction: the rows of so many runs are locked meanwhile


class EndWaits:
    """Ends timers and waits nobody answered in time, and hands over events.

    A run that was parked is rung; the worker that keeps another is told.
    """

    every_seconds = 0.0

    def do(self, desk: Desk) -> float:
        """End what is due; return in how many seconds the next wait is."""
        ended = self._end_due(desk) and self._hand_over(desk)
        return self._next_due(desk) if ended else CHOKED_SECONDS

    def _end_due(self, desk: Desk) -> bool:
        """Return whether all that was due has ended."""
        for _ in range(MAX_ROUNDS):
            if self._next_due(desk) > 0:
                return True
            if _are_enough(desk):
                return False
            rows = desk.do(take_due())
            waits = [due_from(row) for row in rows]
            self._end(desk, sorted(waits, key=lambda wait: wait.due_at))  # taken in no order
            if len(rows) < MAX_DUE:
                return True
        return False

    def _end(self, desk: Desk, waits: Sequence[DueWait]) -> None:
        ring_again = desk.settings.ring_again_seconds
        units = [
            ending_of(wait, ring_again=ring_again) if wait.is_live else close_run(wait.run_id)
            for wait in waits
        ]
        for wait, rows in zip(waits, _committed(desk, units), strict=True):
            if wait.is_live:
                _ring(desk, wait.run_id, rows)

    def _hand_over(self, desk: Desk) -> bool:
        for _ in range(MAX_ROUNDS):
            if _are_enough(desk):
                return False
            met = [Met(*row) for row in desk.read(READ_MET)]
            units = [handing_over(each, ring_again=desk.settings.ring_again_seconds) for each in met]
            for each, rows in zip(met, _committed(desk, units), strict=True):
                _ring(desk, each.run_id, rows)
            if len(met) < MAX_MET:
                return True
        return False

    @staticmethod
    def _next_due(desk: Desk) -> float:
        rows = desk.read(READ_NEXT_DUE)
        return min(max(rows[0][0], 0.0), desk.settings.sweep_seconds) if rows else desk.settings.sweep_seconds


def _are_enough(desk: Desk) -> bool:
    """Whether workers have their hands full with what was rung."""
    params = {"most": MAX_UNCLAIMED, "ring_again": desk.settings.ring_again_seconds}
    [(unclaimed,)] = desk.read(COUNT_RUNG, params)
    return bool(unclaimed >= MAX_UNCLAIMED)


def _committed(desk: Desk, units: list[Unit]) -> list[Rows]:
    ordered = sorted(range(len(units)), key=lambda place: units[place].order)
    answers: list[Rows] = [[] for _ in units]
    for start in range(0, len(ordered), MAX_UNITS):
        places = ordered[start : start + MAX_UNITS]
        for place, rows in zip(places, desk.commit([units[place] for place in places]), strict=True):
            answers[place] = rows
    return answers


def _ring(desk: Desk, run_id: str, rows: Rows) -> None:
    for row in rows:
        woken = Woken(*row)
        if woken.wants_bell:
            desk.ring(Doorbell(run_id, woken.name, woken.route, woken.deployment, begun=True))
        elif woken.owner is not None:
            desk.nudge(woken.owner, run_id)
