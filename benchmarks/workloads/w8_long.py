"""W8: one agent of 100 and one of 200 turns of 0 s, a tool call in each: what a turn costs must not grow."""

from __future__ import annotations

import asyncio
import statistics
from itertools import pairwise

from benchmarks.counts import Meter, residency
from benchmarks.floors.agents import run_agents
from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.model_server import request_times
from benchmarks.programs import long_agent, longer_agent, script_of, short_long_agent, tool_agent
from polos import Agent, PolosClient

NAME = "w8"
TITLE = "one agent of 100, one of 200 turns: the last ten against the first ten"
GOALS = {
    "first_ms": Goal(None, None, less=True),
    "last_ms": Goal(None, None, less=True),
    "growth": Goal(1.2, 1.2, less=True),
}
EDGE = 10  # turns at each end that are compared
FLOOR = "raw http + raw commits"


async def run(bench: Bench) -> list[Result]:
    """Measure at the model server: the time from one request to the next is all a turn costs."""
    agents = [short_long_agent] if bench.quick else [long_agent, longer_agent]
    async with bench.polos(workers=1, models=True) as (client, meter):
        await tool_agent.run(client, "Look it up")
        return [await _measured(bench, client, meter, agent) for agent in agents]


async def _measured(bench: Bench, client: PolosClient, meter: Meter, agent: Agent) -> Result:
    site = bench.site
    turns = int(script_of(agent).split("-")[1]) + 1
    result = Result(NAME, f"{turns} turns", site.database, bench.quick, "turn", turns, GOALS)
    gaps: dict[str, list[list[float]]] = {"polos": [], FLOOR: []}

    async def floor() -> Figures:
        await asyncio.to_thread(request_times, bench.model_url)
        await run_agents(site.floor_url, bench.model_url, script_of(agent), count=1, at_once=1)
        gaps[FLOOR].append(await _gaps(bench))
        return _figures(gaps[FLOOR][-1])

    async def ours() -> Figures:
        await asyncio.to_thread(request_times, bench.model_url)
        await agent.run(client, "Look it up")
        gaps["polos"].append(await _gaps(bench))
        return _figures(gaps["polos"][-1])

    await measure(bench, result, meter, ours, {FLOOR: floor})
    runs = turns * len(result.polos)  # the agent and its tool calls
    result.notes = residency(result.counts, runs=runs)
    result.axis = "turn"
    result.curves = {f"ms of a turn, {name}": _curve(repeats) for name, repeats in gaps.items()}
    return result


async def _gaps(bench: Bench) -> list[float]:
    """Return the milliseconds between one request and the next."""
    times = await asyncio.to_thread(request_times, bench.model_url)
    return [1000 * (after - before) for before, after in pairwise(times)]


def _figures(gaps: list[float]) -> Figures:
    first, last = statistics.median(gaps[:EDGE]), statistics.median(gaps[-EDGE:])
    return {"first_ms": first, "last_ms": last, "growth": last / first}


def _curve(repeats: list[list[float]]) -> list[tuple[float, float]]:
    """Return medians of ten turns each, over all repeats, by the number of their last turn."""
    length = len(repeats[0])
    return [
        (
            min(start + EDGE, length),
            statistics.median(gap for gaps in repeats for gap in gaps[start : start + EDGE]),
        )
        for start in range(0, length, EDGE)
    ]
