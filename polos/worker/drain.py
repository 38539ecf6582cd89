"""The end of a worker: park what waits, let what runs finish within the grace, hand the rest back."""

from __future__ import annotations

import asyncio
import logging

from polos.engine.execution import Execution
from polos.engine.parking import hand_back, put_resident_away
from polos.engine.runtime import Runtime
from polos.journal.recovery import put_back_turns
from polos.journal.runs import READ_RUN, run_record

logger = logging.getLogger("polos.worker")

LOOK_AGAIN_SECONDS = 0.05


async def drain(runtime: Runtime, *, grace_seconds: float) -> None:
    """Leave nothing owned by this worker. Nothing is recorded as an outcome that only the end caused."""
    runtime.draining = True
    deadline = asyncio.get_running_loop().time() + grace_seconds
    while runtime.executions or runtime.turns or runtime.claiming:
        await _put_residents_away(runtime)
        if asyncio.get_running_loop().time() >= deadline:
            break
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    await asyncio.gather(*(_cut_off(runtime, execution) for execution in list(runtime.executions.values())))
    await _hand_back_turns(runtime)


async def _cut_off(runtime: Runtime, execution: Execution) -> None:
    logger.warning("Run %s is cut off and handed back", execution.run_id)
    await hand_back(runtime, execution)


async def _put_residents_away(runtime: Runtime) -> None:
    executions = list(runtime.executions.values())
    for execution in executions:
        execution.hold_back = True
    waiting = [execution for execution in executions if execution.waiting_since is not None]
    await asyncio.gather(*(put_resident_away(runtime, execution) for execution in waiting))


async def _hand_back_turns(runtime: Runtime) -> None:
    """Schedule interrupted turns again; each counts as a try, since the provider may bill it."""
    for call in list(runtime.turns.values()):
        if call is not None:
            call.cancel()
    while rows := await runtime.journal.do(put_back_turns(runtime.worker_id, crashed=False)):
        for run_id, step in rows:
            logger.warning("Turn %s of run %s is cut off and handed back", step, run_id)
        await asyncio.gather(*(_ring_turn(runtime, run_id, step) for run_id, step in rows))


async def _ring_turn(runtime: Runtime, run_id: str, step: str) -> None:
    for row in await runtime.journal.read(READ_RUN, run=run_id):
        run = run_record(row)
        runtime.ring_turn(run_id, step, run["name"], run["route"], run["deployment"])
