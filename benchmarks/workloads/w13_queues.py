"""W13: a limited queue at full speed; and a tenant that starts runs behind another's backlog."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any

import redis

from benchmarks.floors.queue import FloorClient, floor_client
from benchmarks.measuring import Bench, Figures, Goal, Result, measure, percentile
from benchmarks.programs import ONE_STEP
from benchmarks.waiting import completed, connection, until_completed
from benchmarks.workers import floor_workers
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
WORKERS = 2
LIMIT = 20
BATCH = 500
DRAIN_SECONDS = 3.0
FORGET = (
    "UPDATE run SET status = 'cancelled', slot = NULL, ring_at = NULL, finished_at = created_at"
    " WHERE concurrency_key = 'a' AND status = 'queued'"
)


async def run(bench: Bench) -> list[Result]:
    """Measure both with two workers."""
    async with floor_workers(bench.site, WORKERS):
        with floor_client(bench.site) as plain:
            await plain.run_many(10, batch=10)
            return [await _limited(bench, plain), await _backlog(bench, plain)]


async def _limited(bench: Bench, plain: FloorClient) -> Result:
    runs = bench.size(1000, 200)
    result = Result(NAME, "limited", bench.site.database, bench.quick, "run", runs, LIMITED)
    async with bench.polos(workers=WORKERS) as (client, meter):

        async def floor() -> Figures:
            _, seconds = await plain.run_many(runs, batch=BATCH)
            return {"admitted_per_second": runs / seconds}

        async def ours() -> Figures:
            before = completed(bench.site.journal_url)
            began = time.perf_counter()
            await _start(client, runs, "", queue_name="limited", queue_concurrency_limit=LIMIT)
            await until_completed(bench.site.journal_url, before + runs)
            return {"admitted_per_second": runs / (time.perf_counter() - began)}

        await measure(bench, result, meter, ours, {"celery + raw commits, no limit": floor})
    return result


async def _backlog(bench: Bench, plain: FloorClient) -> Result:
    runs = bench.size(100_000, 2_000)
    url = bench.site.journal_url
    result = Result(NAME, "backlog", bench.site.database, bench.quick, "run", runs, BACKLOG)
    async with bench.client() as client:
        used = _broker_bytes(bench)
        with _forgotten(url):
            share = runs // bench.repeats
            enqueued = [share / await _start(client, share, "a") for _ in range(bench.repeats)]
            grown = (_broker_bytes(bench) - used) / 1024
            async with bench.polos(workers=WORKERS) as (client, meter):

                async def ours() -> Figures:
                    found = await _come_behind(client, url)
                    deferred = enqueued[len(result.polos)]
                    return {**found, "deferred_per_second": deferred, "broker_kb": grown}

                async def floor() -> Figures:
                    return await _without_backlog(plain)

                # Not counted: how many runs of the backlog are served meanwhile is noise.
                floors = {"celery + raw commits, no backlog": floor}
                await measure(bench, result, meter, ours, floors, counted=False)
    return result


async def _without_backlog(plain: FloorClient) -> Figures:
    """Return what is to be had when nobody is in front."""
    began = time.perf_counter()
    await asyncio.to_thread(plain.create, BATCH, batch=BATCH)
    deferred = BATCH / (time.perf_counter() - began)
    _, last = await plain.run_many(10, batch=1)
    _, seconds = await plain.run_many(BATCH, batch=BATCH)
    return {
        "last_of_ten_started_ms": 1000 * last,
        "drained_per_second": BATCH / seconds,
        "deferred_per_second": deferred,
    }


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


async def _start(client: PolosClient, runs: int, key: str, **options: Any) -> float:
    """Start runs; return how many seconds it took."""
    began = time.perf_counter()
    for start in range(0, runs, BATCH):
        batch = range(start, min(start + BATCH, runs))
        request = RunRequest(workflow_id=ONE_STEP, payload="a", concurrency_key=key or None, **options)
        await client.start_runs([request for _ in batch])
    return time.perf_counter() - began


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
