"""W8: one agent of 100 turns of 0 s, a tool call in each: what a turn costs must not grow."""

from __future__ import annotations

import asyncio
import statistics
from itertools import pairwise

from benchmarks.floors.agents import run_agents
from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.model_server import request_times
from benchmarks.programs import long_agent, script_of, short_long_agent, tool_agent

NAME = "w8"
TITLE = "one agent of 100 turns: the last ten against the first ten"
GOALS = {
    "first_ms": Goal(None, None, less=True),
    "last_ms": Goal(None, None, less=True),
    "growth": Goal(1.2, 1.2, less=True),
}
EDGE = 10  # turns at each end that are compared


async def run(bench: Bench) -> list[Result]:
    """Measure at the model server: the time from one request to the next is all a turn costs."""
    agent = short_long_agent if bench.quick else long_agent
    site = bench.site
    turns = int(script_of(agent).split("-")[1]) + 1
    result = Result(NAME, "", site.database, bench.quick, "turn", turns, GOALS)
    async with bench.polos(workers=1, models=True) as (client, meter):

        async def floor() -> Figures:
            await asyncio.to_thread(request_times, bench.model_url)
            await run_agents(site.floor_url, bench.model_url, script_of(agent), count=1, at_once=1)
            return _figures(await asyncio.to_thread(request_times, bench.model_url))

        async def ours() -> Figures:
            await asyncio.to_thread(request_times, bench.model_url)
            await agent.run(client, "Look it up")
            return _figures(await asyncio.to_thread(request_times, bench.model_url))

        await tool_agent.run(client, "Look it up")
        await measure(bench, result, meter, ours, {"raw http + raw commits": floor})
    result.notes = {
        "parks": result.counts["engine:runs.park"],
        "claims": result.counts["engine:runs.claim"],
        "whole_journal_reads": result.counts["engine:steps.read_steps"],
        "conversation_reads": result.counts["engine:steps.read_turns"],
    }
    return [result]


def _figures(times: list[float]) -> Figures:
    gaps = [1000 * (after - before) for before, after in pairwise(times)]
    first, last = statistics.median(gaps[:EDGE]), statistics.median(gaps[-EDGE:])
    return {"first_ms": first, "last_ms": last, "growth": last / first}
