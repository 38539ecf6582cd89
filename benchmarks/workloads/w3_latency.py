"""W3: a client submits a workflow of one step to another process and waits for its result, 300 times."""

from __future__ import annotations

import asyncio
import time

from benchmarks.floors.queue import floor_client
from benchmarks.measuring import Bench, Figures, Goal, Result, measure, percentile
from benchmarks.programs import one_step
from benchmarks.workers import floor_workers

NAME = "w3"
TITLE = "submit, run elsewhere, read the result: one at a time"
GOALS = {
    "p50_ms": Goal(4.5, 6, less=True),
    "p95_ms": Goal(None, None, less=True),
    "p99_ms": Goal(12, 15, less=True),
}


async def run(bench: Bench) -> list[Result]:
    """Measure at the client."""
    runs = bench.size(300, 50)
    result = Result(NAME, "", bench.site.database, bench.quick, "run", runs, GOALS)
    async with floor_workers(bench.site, 1), bench.polos(workers=1) as (client, meter):
        with floor_client(bench.site) as plain:

            async def floor() -> Figures:
                return _figures([await asyncio.to_thread(plain.run_one) for _ in range(runs)])

            async def ours() -> Figures:
                times = []
                for number in range(runs):
                    began = time.perf_counter()
                    await one_step.run(client, str(number))
                    times.append(time.perf_counter() - began)
                return _figures(times)

            for number in range(10):
                await one_step.run(client, str(number))
                await asyncio.to_thread(plain.run_one)
            await measure(bench, result, meter, ours, {"celery + raw commits": floor})
    return [result]


def _figures(seconds: list[float]) -> Figures:
    return {f"p{percent}_ms": 1000 * percentile(seconds, percent) for percent in (50, 95, 99)}
