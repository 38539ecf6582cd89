"""W11: one workflow that starts 1,000 children at once and waits for all of them, on two worker processes."""

from __future__ import annotations

from benchmarks.floors.queue import floor_client
from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.programs import fan_out
from benchmarks.workers import floor_workers

NAME = "w11"
TITLE = "one workflow that waits for 1,000 children"
WORKERS = 2
GOALS = {"children_per_second": Goal(None, None)}


async def run(bench: Bench) -> list[Result]:
    """Measure inside the parent: from asking for its children until the last outcome reaches its code."""
    children = bench.size(1000, 100)
    result = Result(NAME, "", bench.site.database, bench.quick, "child", children, GOALS)
    async with floor_workers(bench.site, WORKERS), bench.polos(workers=WORKERS) as (client, meter):
        with floor_client(bench.site) as plain:

            async def floor() -> Figures:
                _, seconds = await plain.run_many(children, batch=children)
                return {"children_per_second": children / seconds}

            async def ours() -> Figures:
                return {"children_per_second": children / await fan_out.run(client, {"children": children})}

            await fan_out.run(client, {"children": 10})
            await plain.run_many(10, batch=10)
            await measure(bench, result, meter, ours, {"celery + raw commits": floor})
    return [result]
