"""W11: one workflow that starts 1,000 children at once and waits for all of them, on two worker processes."""

from __future__ import annotations

from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.programs import fan_out

NAME = "w11"
TITLE = "one workflow that waits for 1,000 children"
GOALS = {"children_per_second": Goal(None, None)}


async def run(bench: Bench) -> list[Result]:
    """Measure inside the parent: from asking for its children until the last outcome reaches its code."""
    children = bench.size(1000, 100)
    result = Result(NAME, "", bench.site.database, bench.quick, "child", children, GOALS)
    async with bench.polos(workers=2) as (client, meter):

        async def ours() -> Figures:
            return {"children_per_second": children / await fan_out.run(client, {"children": children})}

        await fan_out.run(client, {"children": 10})
        await measure(bench, result, meter, ours, {})
    return [result]
