"""W12: thousands of runs that sleep until one moment: what each costs meanwhile, and how fast they wake."""

from __future__ import annotations

import asyncio
import time

from benchmarks.floors.queue import FloorClient, floor_client
from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.processes import cpu_seconds
from benchmarks.programs import SLEEPER
from benchmarks.servers import Site
from benchmarks.waiting import completed, connection, journal_bytes, until, until_completed
from benchmarks.workers import Fleet, floor_workers
from polos import BatchWorkflowInput, PolosClient

NAME = "w12"
TITLE = "runs that sleep until the same moment"
GOALS = {
    "fired_per_second": Goal(None, None),
    "first_late_ms": Goal(1000, 1000, less=True),
    "bytes_per_sleeper": Goal(4096, 4096, less=True),
    "cpu_ms_per_second_asleep": Goal(None, None, less=True),
}
WORKERS = 2
BATCH = 500
MOST_SECONDS = 600.0
AHEAD_SECONDS = 15.0  # beyond the threshold under which a run sleeps in memory
SETTLED = "SELECT count(*) FROM run WHERE status IN ('waiting', 'completed')"
FIRST = "SELECT min(finished_at) FROM step WHERE kind = 'timer' AND finished_at >= {}"


async def run(bench: Bench) -> list[Result]:
    """Measure while all are parked, and from their moment until all have completed."""
    sleepers = bench.size(10_000, 300)
    result = Result(NAME, "", bench.site.database, bench.quick, "sleeper", sleepers, GOALS)
    async with floor_workers(bench.site, WORKERS), bench.polos(workers=WORKERS) as (client, meter):
        with floor_client(bench.site) as plain:

            async def ours() -> Figures:
                return await _sleep(bench, client, meter.fleet, sleepers)

            async def floor() -> Figures:
                return await _ring_late(bench.site, plain, sleepers)

            await plain.run_many(10, batch=10)
            await measure(bench, result, meter, ours, {"celery + raw commits, rung at once": floor})
    return [result]


async def _ring_late(site: Site, plain: FloorClient, sleepers: int) -> Figures:
    """Commit all rows, and send their messages later: what is left when nobody has to look what is due."""
    size, before = journal_bytes(site.floor_url), completed(site.floor_url)
    runs = await asyncio.to_thread(plain.create, sleepers, batch=BATCH)
    grown = journal_bytes(site.floor_url) - size
    moment = time.perf_counter()
    await asyncio.to_thread(plain.ring, runs)
    await until_completed(site.floor_url, before + sleepers)
    return {
        "fired_per_second": sleepers / (time.perf_counter() - moment),
        "bytes_per_sleeper": grown / sleepers,
    }


async def _sleep(
    bench: Bench, client: PolosClient, fleet: Fleet, sleepers: int, ahead: float = AHEAD_SECONDS
) -> Figures:
    if ahead > MOST_SECONDS:
        raise RuntimeError(f"{sleepers} runs could not be put to sleep in {MOST_SECONDS} s")
    url = bench.site.journal_url
    with connection(url) as driver:
        [before] = driver.execute(SETTLED).fetchone()
    size = journal_bytes(url)
    moment = time.time() + ahead + sleepers / 200
    for start in range(0, sleepers, BATCH):
        batch = range(start, min(start + BATCH, sleepers))
        items = [BatchWorkflowInput(id=SLEEPER, payload={"until": moment}) for _ in batch]
        await client.batch_invoke(items)
    await until(url, SETTLED, before + sleepers)
    asleep = moment - time.time()
    if asleep < 1:  # a busy machine had not put all of them to sleep
        await until_completed(url, before + sleepers)
        return await _sleep(bench, client, fleet, sleepers, ahead=2 * ahead)
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
