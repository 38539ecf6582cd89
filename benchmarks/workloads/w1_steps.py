"""W1: one workflow of 1,000 steps that do nothing, one after another, each committed alone."""

from __future__ import annotations

from benchmarks.floors.steps import group_commits, raw_commits
from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.programs import Steps, many_steps

NAME = "w1"
TITLE = "steps of one workflow, one after another"
GOALS = {"steps_per_second": Goal(2000, 1000)}


async def run(bench: Bench) -> list[Result]:
    """Measure on the worker's own clock, between the first step and the last."""
    steps = bench.size(1000, 200)
    url = bench.site.floor_url
    result = Result(NAME, "", bench.site.database, bench.quick, "step", steps, GOALS)
    floors = {
        "raw commits": lambda: raw_commits(url, steps),
        "group commit": lambda: group_commits(url, steps),
    }
    async with bench.polos(workers=1) as (client, meter):

        async def ours() -> Figures:
            return {"steps_per_second": steps / await many_steps.run(client, Steps(count=steps))}

        await many_steps.run(client, Steps(count=20))
        await measure(bench, result, meter, ours, floors)
    return [result]
