"""Finding runs that nothing would ever move: counted, put right, or reported where only a person can."""

from __future__ import annotations

import logging
import uuid

from polos.journal.cancelling import cancelling, carry_out, target_of
from polos.journal.leases import take_lease
from polos.journal.runs import READ_RUN, run_record
from polos.journal.stuck import (
    CHECK_PARAMS,
    CHECKS,
    ORPHANS,
    READ_ANY_ILLEGAL,
    ROW_CHECKS,
    Check,
    Found,
    count_finding,
)
from polos.worker.duties.desk import Desk

logger = logging.getLogger("polos.sweeper")

LOOK_SECONDS = 8.0
LEASE_SECONDS = 20.0  # a detector that died is replaced after so long
Sighting = tuple[str, Found]


class FindStuckRuns:
    """Looks for rows in states that nothing moves; what is there in two looks running is no coincidence."""

    every_seconds = LOOK_SECONDS

    def __init__(self) -> None:
        self._me = uuid.uuid4().hex
        self._seen: set[Sighting] = set()
        self._reported: set[Sighting] = set()

    def do(self, desk: Desk) -> None:
        """Look, unless another sweeper does; mend what the last look saw, too."""
        if not desk.do(take_lease("detector", self._me, seconds=LEASE_SECONDS)):
            self._seen.clear()
            return
        seen: set[Sighting] = set()
        for check in _wanted(desk):
            for row in desk.read(check.find, CHECK_PARAMS):
                found = Found(*row)
                seen.add((check.name, found))
                if (check.name, found) in self._seen:
                    self._treat(desk, check, found)
        self._seen = seen
        self._reported &= seen

    def _treat(self, desk: Desk, check: Check, found: Found) -> None:
        if check is ORPHANS:
            is_new = _cancel(desk, found)
        elif check.mend is not None:
            is_new = bool(desk.do(check.mend(found)))
        else:
            is_new = (check.name, found) not in self._reported
            self._reported.add((check.name, found))
        if is_new:
            desk.do(count_finding(check.name, found))
            what = "cancelled" if check is ORPHANS else "put right" if check.mend else "left to a person"
            logger.warning("Found a %s: %s %s; %s", check.name, found.run_id, found.step or "", what)


def _wanted(desk: Desk) -> list[Check]:
    """Return the checks to make: those of single rows only if any row is in such a state."""
    [(any_run, any_step)] = desk.read(READ_ANY_ILLEGAL)
    return [*CHECKS, ORPHANS, *(ROW_CHECKS if any_run or any_step else ())]


def _cancel(desk: Desk, found: Found) -> bool:
    """Cancel a child and all below it, as whoever ended its parent would have done."""
    rows = desk.read(READ_RUN, {"run": found.run_id})
    targets = [target_of(run_record(row)) for row in rows]
    work = cancelling(targets, by="parent", ring_again=desk.settings.ring_again_seconds)
    return bool(carry_out(work, desk))
