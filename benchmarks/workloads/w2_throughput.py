"""W2: 2,000 workflows of one step through the queue to two worker processes."""

from __future__ import annotations

import time
from contextlib import closing

import redis

from benchmarks.floors.queue import floor_client
from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.programs import ONE_STEP, one_step
from benchmarks.waiting import completed, until_completed
from benchmarks.workers import floor_workers
from polos import BatchWorkflowInput

NAME = "w2"
TITLE = "workflows of one step, enqueued at once, two worker processes"
GOALS = {"runs_per_second": Goal(1500, 1200), "enqueued_per_second": Goal(3000, 3000)}
BATCH = 100  # runs that are enqueued in one call
WORKERS = 2
UNSERVED = "unserved"


async def run(bench: Bench) -> list[Result]:
    """Measure from the first enqueue until all runs have completed."""
    runs = bench.size(2000, 300)
    site = bench.site
    result = Result(NAME, "", site.database, bench.quick, "run", runs, GOALS)
    async with floor_workers(site, WORKERS), bench.polos(workers=WORKERS) as (client, meter):
        with floor_client(site) as plain:

            async def floor() -> Figures:
                return _figures(runs, *await plain.run_many(runs, batch=BATCH))

            async def ours() -> Figures:
                before = completed(site.journal_url)
                began = time.perf_counter()
                for start in range(0, runs, BATCH):
                    batch = range(start, min(start + BATCH, runs))
                    await client.batch_invoke(
                        [BatchWorkflowInput(id=ONE_STEP, payload=str(n)) for n in batch]
                    )
                enqueued = time.perf_counter() - began
                await until_completed(site.journal_url, before + runs)
                return _figures(runs, enqueued, time.perf_counter() - began)

            await one_step.run(client, "")
            await plain.run_many(10, batch=10)
            await measure(bench, result, meter, ours, {"celery + raw commits": floor})
            result.notes["message_bytes"] = await _message_bytes(bench)
    return [result]


async def _message_bytes(bench: Bench) -> int:
    """Return the size of a doorbell as it lies in Redis: one for a deployment that nobody serves."""
    async with bench.client(deployment_id=UNSERVED) as client:
        await client.invoke(ONE_STEP, "")
    with closing(redis.Redis.from_url(bench.site.broker_url)) as server:
        [key] = [key for key in server.scan_iter("*", _type="list") if UNSERVED.encode() in key]
        return len(server.lindex(key, 0) or b"")


def _figures(runs: int, enqueued: float, seconds: float) -> Figures:
    return {"runs_per_second": runs / seconds, "enqueued_per_second": runs / enqueued}
