"""W5: 500 agents at once, each a model call of 2 s, a tool and another call; and 200 with calls of 20 s."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

from benchmarks.counts import Meter, residency
from benchmarks.floors.agents import run_agents
from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.programs import long_calls_agent, script_of, slow_agent, tool_agent
from polos import Agent, PolosClient

NAME = "w5"
TITLE = "agents that wait for their models, all at once, two worker processes"
GOALS = {"seconds": Goal(5.0, 5.0, less=True), "cpu_seconds": Goal(4.0, 4.0, less=True)}
LONG_GOALS = {"seconds": Goal(41.0, 41.0, less=True), "cpu_seconds": Goal(None, None, less=True)}
WORKERS = 2


async def run(bench: Bench) -> list[Result]:
    """Measure until all have ended; CPU seconds are those of the worker processes."""
    async with bench.polos(workers=WORKERS, models=True) as (client, meter):
        await asyncio.gather(*(tool_agent.run(client, "Look it up") for _ in range(2 * WORKERS)))
        return [
            await _measured(bench, client, meter, slow_agent, "", bench.size(500, 100), GOALS),
            await _measured(
                bench, client, meter, long_calls_agent, "20 s calls", bench.size(200, 20), LONG_GOALS
            ),
        ]


async def _measured(
    bench: Bench,
    client: PolosClient,
    meter: Meter,
    agent: Agent,
    variant: str,
    agents: int,
    goals: Mapping[str, Goal],
) -> Result:
    site = bench.site
    result = Result(NAME, variant, site.database, bench.quick, "agent", agents, goals)

    async def floor() -> Figures:
        spent = await run_agents(
            site.floor_url, bench.model_url, script_of(agent), count=agents, at_once=agents
        )
        return {"seconds": spent.seconds, "cpu_seconds": spent.cpu_seconds}

    async def ours() -> Figures:
        cpu_before = meter.fleet.used()["cpu_seconds"]
        began = time.perf_counter()
        await asyncio.gather(*(agent.run(client, "Look it up") for _ in range(agents)))
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "cpu_seconds": meter.fleet.used()["cpu_seconds"] - cpu_before}

    # Of long calls it is counts that matter, which noise does not change: one repeat will do.
    once = replace(bench, repeats=1) if agent is long_calls_agent else bench
    await measure(once, result, meter, ours, {"raw http + raw commits": floor})
    result.notes = residency(result.counts, runs=2 * agents * len(result.polos))  # an agent and its tool call
    return result
