"""Once a second: compare what the database says this worker owns with what it really executes.

So a lost nudge costs a second, a claim whose answer was lost strands nothing, and a run that belongs to
somebody else is dropped.
"""

from __future__ import annotations

import asyncio
import logging

from polos.engine.execution import Execution
from polos.engine.parking import park, resident_seconds
from polos.engine.runtime import Runtime
from polos.engine.tasks import Task, start_apart
from polos.journal.runs import READ_OWNED, hand_back_run
from polos.journal.statements import Row
from polos.journal.turns import READ_OWNED_TURNS, TurnClaim, hand_back_turn

logger = logging.getLogger("polos.worker")

AUDIT_SECONDS = 1.0
STRAYS_AFTER_AUDITS = 2  # owned but not executed in so many audits running: not merely on its way


class Audit:
    """The one-second check of a worker, and what a nudge does at once."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._task: Task | None = None
        self._strays: dict[tuple[str, str, int], int] = {}

    def start(self) -> None:
        """Begin to look every second."""
        self._task = start_apart(self._run(), name="polos-audit")

    async def stop(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def look_at(self, run_id: str) -> None:
        """Read what happened for one run, because somebody says that something did."""
        if (execution := self._runtime.executions.get(run_id)) is not None:
            execution.look_again()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(AUDIT_SECONDS)
            try:
                await self.check()
            except Exception:
                logger.exception("An audit failed; the next one tries again")

    async def check(self) -> None:
        """Compare once."""
        runtime = self._runtime
        worker_id = runtime.worker_id
        held = dict(runtime.executions)
        owned = await runtime.journal.read(READ_OWNED, worker=worker_id)
        if worker_id != runtime.worker_id:
            return  # declared dead meanwhile: everything is being dropped
        rows = {row[0]: row for row in owned}
        for run_id, execution in held.items():
            self._compare(execution, rows.get(run_id))
        strays = [(row[0], "", int(row[1])) for row in owned if self._is_stray(row[0], "")]
        strays += await self._stray_turns(worker_id)
        await self._hand_back(strays)
        await self._relieve()

    @staticmethod
    def _compare(execution: Execution, found: Row | None) -> None:
        """Make a run read its row again when that is not as it should be: it then goes on, or is dropped."""
        if found is None or (found[1], found[2]) != (execution.claim.attempt, execution.seen_wakes):
            execution.look_again()

    async def _stray_turns(self, worker_id: str) -> list[tuple[str, str, int]]:
        rows = await self._runtime.journal.read(READ_OWNED_TURNS, worker=worker_id)
        owned = {(row[0], row[1]) for row in rows}
        for key, call in list(self._runtime.turns.items()):
            if key not in owned and call is not None and not call.done():
                call.cancel()  # cancelled or taken over: nobody wants this answer
        return [(row[0], row[1], int(row[2])) for row in rows if self._is_stray(row[0], row[1])]

    def _is_stray(self, run_id: str, step: str) -> bool:
        """Whether a run, or a turn where `step` is given, is neither executed nor being claimed here."""
        runtime = self._runtime
        executed = (run_id, step) in runtime.turns if step else run_id in runtime.executions
        return not executed and (run_id, step) not in runtime.claiming

    async def _hand_back(self, strays: list[tuple[str, str, int]]) -> None:
        """Return what this worker owns without executing it: the answer to its claim was lost."""
        counted = {stray: self._strays.get(stray, 0) + 1 for stray in strays}
        self._strays = counted
        for (run_id, step, attempt), times in counted.items():
            if times < STRAYS_AFTER_AUDITS or not self._is_stray(run_id, step):
                continue
            ring_again = self._runtime.settings.ring_again_seconds
            if step:
                claim = TurnClaim(run_id, step, attempt, 1, 0, 0, None)
                await self._runtime.journal.do(hand_back_turn(claim, self._runtime.worker_id, ring_again=0.0))
            elif await self._runtime.journal.do(hand_back_run(run_id, attempt, ring_again=ring_again)):
                await self._runtime.ring_run(run_id)
            logger.warning("Handed back %s %s, which this worker owned without executing it", run_id, step)

    async def _relieve(self) -> None:
        """Park those that wait too long, the longest first, and those above the limit of residents."""
        now = asyncio.get_running_loop().time()
        settings = self._runtime.settings
        waiting = sorted(
            (
                execution
                for execution in self._runtime.executions.values()
                if execution.waiting_since is not None
            ),
            key=lambda execution: execution.waiting_since or 0.0,
        )
        surplus = max(len(waiting) - settings.resident_max, 0)
        for place, execution in enumerate(waiting):
            waited = now - (execution.waiting_since or now)
            if place < surplus or waited > resident_seconds(self._runtime, execution):
                await park(self._runtime, execution)
