"""F24: eight worker processes share an allowance of model calls, and the server that counts it forgets."""

from __future__ import annotations

import asyncio
import bisect
import statistics

from arena import PATIENCE_SECONDS, Arena

PER_SECOND = 10
TOLERANCE = 1  # a call takes a moment from its permit to the model
BETWEEN_FLUSHES_SECONDS = 5.0
PROGRAM = "week-patient"  # one turn
SETTINGS = {
    "POLOS_MODEL_LIMITS": f"openai/*={PER_SECOND}rps",
    "POLOS_MODEL_MAX_WAIT_SECONDS": f"{PATIENCE_SECONDS:g}",
    "POLOS_RING_AGAIN_SECONDS": "2",
}


async def shared_rate(arena: Arena) -> None:
    """Have many turns wait for their place, and flush Redis again and again: no second has more calls."""
    await arena.hire(arena.plan.workers)
    await arena.start_many([PROGRAM], arena.plan.runs)
    ending = asyncio.create_task(arena.all_ended(arena.plan.runs / PER_SECOND * 2 + PATIENCE_SECONDS))
    while not ending.done():
        await asyncio.wait([ending], timeout=BETWEEN_FLUSHES_SECONDS)
        if not ending.done():
            await asyncio.to_thread(arena.broker.forget)
            arena.faults += 1
    began = sorted(call.began_at for call in arena.model.calls)
    callers = {call.worker for call in arena.model.calls}
    busiest = max(_within_a_second(began))
    arena.notes["busiest second"] = str(busiest)
    arena.notes["median second"] = f"{statistics.median(_within_a_second(began)):g}"
    arena.notes["callers"] = str(len(callers))
    if busiest > PER_SECOND + TOLERANCE:
        arena.miss("F24", f"{busiest} calls began within a second, {PER_SECOND} are allowed")
    if len(callers) < arena.plan.workers:
        arena.miss("O8", f"only {sorted(callers)} made calls")


def _within_a_second(began: list[float]) -> list[int]:
    """Return how many calls began in the second from each one on."""
    return [bisect.bisect_left(began, at + 1.0) - place for place, at in enumerate(began)]
