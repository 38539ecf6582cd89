"""Faults behind a connection pooler: it dies, workers die, and it always changes the server processes."""

from __future__ import annotations

import asyncio
import random
import statistics
import time

from arena import PATIENCE_SECONDS, Arena
from scenarios import only_the_struck_are_dead
from week_program import MIXED


async def pooled(arena: Arena) -> None:
    """Kill workers, and the pooler, in turn, while every few seconds the sessions behind it are others."""
    plan, chance = arena.plan, random.Random(arena.plan.seed)
    await arena.hire(plan.workers)
    between = arena.site.pooler
    assert between is not None
    ends = time.monotonic() + plan.seconds
    found: list[float] = []
    async with arena.load(MIXED):
        while time.monotonic() < ends:
            await asyncio.sleep(chance.uniform(0.5, 1.0) * min(plan.seconds / 4, 8.0))
            if arena.faults % 2 == 0:
                arena.disconnect()
                await asyncio.to_thread(_replace, between)
            else:
                found.append(await _dies(arena, chance))
            arena.faults += 1
    await arena.all_ended()
    await arena.nobody_else_is_listed(arena.crew.living)
    only_the_struck_are_dead(arena)
    if found:
        arena.notes["dead are found after"] = f"{statistics.median(found):.1f} s, at most {max(found):.1f} s"


def _replace(between: object) -> None:
    """Kill it and start it again; in one go, for whoever reads the journal meanwhile holds the loop."""
    between.kill()  # type: ignore[attr-defined]
    between.start()  # type: ignore[attr-defined]


async def _dies(arena: Arena, chance: random.Random) -> float:
    """Kill a worker and hire another; return how long it took until it was declared dead."""
    victim = chance.choice(arena.crew.living)
    arena.crew.kill(victim)
    killed_at = time.monotonic()
    gone = lambda: victim.name not in arena.worker_names()  # noqa: E731
    await arena.until(gone, PATIENCE_SECONDS, f"{victim.name} is dead and nobody noticed")
    took = time.monotonic() - killed_at
    await arena.hire()
    return took
