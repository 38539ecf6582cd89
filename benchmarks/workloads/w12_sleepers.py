"""W12: thousands of runs that sleep until one moment: what each costs meanwhile, and how fast they wake."""

from __future__ import annotations

import asyncio
import time

from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.processes import cpu_seconds
from benchmarks.programs import SLEEPER
from benchmarks.waiting import connection, journal_bytes, until, until_completed
from benchmarks.workers import Fleet
from polos import BatchWorkflowInput

NAME = "w12"
TITLE = "runs that sleep until the same moment"
GOALS = {
    "fired_per_second": Goal(None, None),
    "first_late_ms": Goal(1000, 1000, less=True),
    "bytes_per_sleeper": Goal(4096, 4096, less=True),
    "cpu_ms_per_second_asleep": Goal(None, None, less=True),
}
BATCH = 500
AHEAD_SECONDS = 15.0  # beyond the threshold under which a run sleeps in memory
SETTLED = "SELECT count(*) FROM run WHERE status IN ('waiting', 'completed')"
FIRST = "SELECT min(finished_at) FROM step WHERE kind = 'timer' AND finished_at >= {}"


async def run(bench: Bench) -> list[Result]:
    """Measure while all are parked, and from their moment until all have completed."""
    sleepers = bench.size(10_000, 300)
    result = Result(NAME, "", bench.site.database, bench.quick, "sleeper", sleepers, GOALS)
    async with bench.polos(workers=2) as (client, meter):

        async def ours() -> Figures:
            return await _sleep(bench, client, meter.fleet, sleepers)

        await measure(bench, result, meter, ours, {})
    return [result]


async def _sleep(bench: Bench, client: object, fleet: Fleet, sleepers: int) -> Figures:
    url = bench.site.journal_url
    with connection(url) as driver:
        [before] = driver.execute(SETTLED).fetchone()
    size = journal_bytes(url)
    moment = time.time() + AHEAD_SECONDS + sleepers / 200
    for start in range(0, sleepers, BATCH):
        batch = range(start, min(start + BATCH, sleepers))
        items = [BatchWorkflowInput(id=SLEEPER, payload={"until": moment}) for _ in batch]
        await client.batch_invoke(items)  # type: ignore[attr-defined]
    await until(url, SETTLED, before + sleepers)
    asleep = moment - time.time()
    if asleep < 1:
        raise RuntimeError("Not all runs slept before their moment: start fewer")
    grown = journal_bytes(url) - size
    cpu = await _cpu_asleep(fleet, asleep - 0.5)
    await until_completed(url, before + sleepers)
    done = time.time()
    with connection(url) as driver:
        [first] = driver.execute(FIRST.format(moment)).fetchone()
    return {
        "fired_per_second": sleepers / (done - moment),
        "first_late_ms": 1000 * (first - moment),
        "bytes_per_sleeper": grown / sleepers,
        "cpu_ms_per_second_asleep": 1000 * cpu,
    }


async def _cpu_asleep(fleet: Fleet, seconds: float) -> float:
    """Return the CPU seconds that the workers use in a second in which nothing is due."""
    before = sum(cpu_seconds(worker.pid) for worker in fleet.workers)
    await asyncio.sleep(seconds)
    return (sum(cpu_seconds(worker.pid) for worker in fleet.workers) - before) / seconds
