"""W4: an agent with three turns of five parallel tool calls and an answer; the model answers at once."""

from __future__ import annotations

import asyncio
import time

from benchmarks.counts import Meter
from benchmarks.floors.agents import run_agents
from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.programs import script_of, tool_agent
from polos import PolosClient

NAME = "w4"
TITLE = "agents with 4 model calls of 0 s and 15 tool calls, two worker processes"
GOALS = {
    1: {"agents_per_second": Goal(25, 25)},
    50: {"agents_per_second": Goal(80, 80)},
}
WORKERS = 2


async def run(bench: Bench) -> list[Result]:
    """Measure at the client, with 1 and with 50 agents at a time."""
    async with bench.polos(workers=WORKERS, models=True) as (client, meter):
        await _run_many(client, 2 * WORKERS, at_once=2 * WORKERS)
        return [
            await _measure(bench, client, meter, at_once=1, agents=bench.size(20, 5)),
            await _measure(bench, client, meter, at_once=50, agents=bench.size(200, 50)),
        ]


async def _measure(bench: Bench, client: PolosClient, meter: Meter, *, at_once: int, agents: int) -> Result:
    site = bench.site
    variant = f"{at_once} at once"
    result = Result(NAME, variant, site.database, bench.quick, "agent", agents, GOALS[at_once])

    async def floor() -> Figures:
        spent = await run_agents(
            site.floor_url, bench.model_url, script_of(tool_agent), count=agents, at_once=at_once
        )
        return {"agents_per_second": agents / spent.seconds}

    async def ours() -> Figures:
        return {"agents_per_second": agents / await _run_many(client, agents, at_once=at_once)}

    await measure(bench, result, meter, ours, {"raw http + raw commits": floor})
    return result


async def _run_many(client: PolosClient, agents: int, *, at_once: int) -> float:
    room = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with room:
            await tool_agent.run(client, "Look it up")

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(agents)))
    return time.perf_counter() - began
