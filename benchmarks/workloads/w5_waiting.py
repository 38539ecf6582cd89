"""W5: 500 agents at once, each a model call of 2 s, a tool, and a model call of 2 s: ideally 4 s."""

from __future__ import annotations

import asyncio
import time

from benchmarks.floors.agents import run_agents
from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.programs import script_of, slow_agent, tool_agent

NAME = "w5"
TITLE = "agents that wait for their models, all at once, two worker processes"
GOALS = {"seconds": Goal(5.0, 5.0, less=True), "cpu_seconds": Goal(4.0, 4.0, less=True)}
WORKERS = 2


async def run(bench: Bench) -> list[Result]:
    """Measure until all have ended; CPU seconds are those of the worker processes."""
    agents = bench.size(500, 100)
    site = bench.site
    result = Result(NAME, "", site.database, bench.quick, "agent", agents, GOALS)
    async with bench.polos(workers=WORKERS, models=True) as (client, meter):

        async def floor() -> Figures:
            spent = await run_agents(
                site.floor_url, bench.model_url, script_of(slow_agent), count=agents, at_once=agents
            )
            return {"seconds": spent.seconds, "cpu_seconds": spent.cpu_seconds}

        async def ours() -> Figures:
            cpu_before = meter.fleet.used()["cpu_seconds"]
            began = time.perf_counter()
            await asyncio.gather(*(slow_agent.run(client, "Look it up") for _ in range(agents)))
            seconds = time.perf_counter() - began
            return {"seconds": seconds, "cpu_seconds": meter.fleet.used()["cpu_seconds"] - cpu_before}

        await asyncio.gather(*(tool_agent.run(client, "Look it up") for _ in range(2 * WORKERS)))
        await measure(bench, result, meter, ours, {"raw http + raw commits": floor})
    return [result]
