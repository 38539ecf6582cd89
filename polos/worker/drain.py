"""The end of a worker: park what waits, let what runs finish within the grace, hand the rest back."""

from __future__ import annotations

import asyncio
import logging

from polos.dispatch import Doorbell
from polos.engine.coordinator import hand_back, park
from polos.engine.runtime import Runtime
from polos.journal.recovery import put_back_turns

logger = logging.getLogger("polos.worker")

LOOK_AGAIN_SECONDS = 0.05


async def drain(runtime: Runtime, *, grace_seconds: float) -> None:
    """Leave nothing owned by this worker. Nothing is recorded as an outcome that only the end caused."""
    runtime.draining = True
    deadline = asyncio.get_running_loop().time() + grace_seconds
    while runtime.executions or runtime.turns:
        await _put_residents_away(runtime)
        if asyncio.get_running_loop().time() >= deadline:
            break
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    for execution in list(runtime.executions.values()):
        logger.warning("Run %s is cut off and handed back", execution.run_id)
        await hand_back(runtime, execution)
    await _hand_back_turns(runtime)


async def _put_residents_away(runtime: Runtime) -> None:
    for execution in list(runtime.executions.values()):
        execution.hold_back = True
        if execution.waiting_since is None:
            continue
        if execution.is_held_back:
            await hand_back(runtime, execution)
        else:
            await park(runtime, execution)


async def _hand_back_turns(runtime: Runtime) -> None:
    """Schedule interrupted turns again; each counts as a try, since the provider may bill it."""
    for call in list(runtime.turns.values()):
        if call is not None:
            call.cancel()
    rows = await runtime.journal.do(put_back_turns(runtime.worker_id, crashed=False))
    for run_id, step in rows:
        logger.warning("Turn %s of run %s is cut off and handed back", step, run_id)
        runtime.dispatcher.ring(Doorbell(run_id, "turn", step=step, begun=True))
