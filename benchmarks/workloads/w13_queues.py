"""W13: a limited queue at full speed; and a tenant that starts runs behind another's backlog."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any

import redis

from benchmarks.measuring import Bench, Figures, Goal, Result, measure, percentile
from benchmarks.programs import ONE_STEP
from benchmarks.waiting import completed, connection, until_completed
from polos.client import PolosClient
from polos.transport import RunRequest

NAME = "w13"
TITLE = "a queue with a limit at full speed; ten runs that come behind a backlog of 100,000"
LIMITED = {"admitted_per_second": Goal(None, None)}
BACKLOG = {
    "last_of_ten_started_ms": Goal(2000, 2000, less=True),
    "drained_per_second": Goal(None, None),
    "deferred_per_second": Goal(None, None),
    "broker_kb": Goal(1024, 1024, less=True),
}
LIMIT = 20
BATCH = 500
DRAIN_SECONDS = 3.0
FORGET = (
    "UPDATE run SET status = 'cancelled', slot = NULL, ring_at = NULL, finished_at = created_at"
    " WHERE concurrency_key = 'a' AND status = 'queued'"
)


async def run(bench: Bench) -> list[Result]:
    """Measure both with two workers."""
    return [await _limited(bench), await _backlog(bench)]


async def _limited(bench: Bench) -> Result:
    runs = bench.size(1000, 200)
    result = Result(NAME, "limited", bench.site.database, bench.quick, "run", runs, LIMITED)
    async with bench.polos(workers=2) as (client, meter):

        async def ours() -> Figures:
            before = completed(bench.site.journal_url)
            began = time.perf_counter()
            await _start(client, runs, "", queue_name="limited", queue_concurrency_limit=LIMIT)
            await until_completed(bench.site.journal_url, before + runs)
            return {"admitted_per_second": runs / (time.perf_counter() - began)}

        await measure(bench, result, meter, ours, {})
    return result


async def _backlog(bench: Bench) -> Result:
    runs = bench.size(100_000, 2_000)
    url = bench.site.journal_url
    result = Result(NAME, "backlog", bench.site.database, bench.quick, "run", runs, BACKLOG)
    async with bench.client() as client:
        used = _broker_bytes(bench)
        began = time.perf_counter()
        with _forgotten(url):
            await _start(client, runs, "a")
            enqueued = runs / (time.perf_counter() - began)
            grown = (_broker_bytes(bench) - used) / 1024
            async with bench.polos(workers=2) as (client, meter):

                async def ours() -> Figures:
                    found = await _come_behind(client, url)
                    return {**found, "deferred_per_second": enqueued, "broker_kb": grown}

                await measure(bench, result, meter, ours, {})
    return result


async def _come_behind(client: PolosClient, url: str) -> Figures:
    """Start ten runs of another tenant, and look how fast those before them go."""
    key = f"b{time.time_ns()}"
    handles = await asyncio.gather(*(_one(client, key) for _ in range(10)))
    records = [await client.wait(handle.id) for handle in handles]
    waited = [_seconds(record["started_at"]) - _seconds(record["created_at"]) for record in records]
    before, began = completed(url), time.perf_counter()
    await asyncio.sleep(DRAIN_SECONDS)
    drained = (completed(url) - before) / (time.perf_counter() - began)
    return {"last_of_ten_started_ms": 1000 * percentile(waited, 100), "drained_per_second": drained}


async def _one(client: PolosClient, key: str) -> Any:
    return await client.invoke(ONE_STEP, "b", concurrency_key=key)


async def _start(client: PolosClient, runs: int, key: str, **options: Any) -> None:
    for start in range(0, runs, BATCH):
        batch = range(start, min(start + BATCH, runs))
        request = RunRequest(workflow_id=ONE_STEP, payload="a", concurrency_key=key or None, **options)
        await client.start_runs([request for _ in batch])


@contextmanager
def _forgotten(url: str) -> Iterator[None]:
    """Leave nothing of the backlog to later workloads."""
    try:
        yield
    finally:
        with connection(url) as driver:
            driver.execute(FORGET)


def _broker_bytes(bench: Bench) -> int:
    with closing(redis.Redis.from_url(bench.site.broker_url)) as server:
        return int(server.info("memory")["used_memory"])


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
