"""W15: the work of W2 and W4 on 1, 2 and 4 worker processes of one database: where the curve bends."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import closing

import redis
from sqlalchemy import make_url

from benchmarks.counts import POSTGRES_CPU, Meter, difference
from benchmarks.floors.agents import run_agents
from benchmarks.floors.queue import FloorClient, floor_client
from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.programs import ONE_STEP, script_of, tool_agent
from benchmarks.servers import POLOS_DATABASE_NUMBER
from benchmarks.waiting import completed, connection, until_completed
from benchmarks.workers import floor_workers
from polos import BatchWorkflowInput
from polos.client import PolosClient

NAME = "w15"
TITLE = "runs and agents on 1, 2 and 4 worker processes of one database"
WORKERS = (1, 2, 4)
BATCH = 100
AT_ONCE = 50
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
COMMITS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s"
SETTLE_SECONDS = 2.0  # the server tells of its statistics a second later
RUNS, AGENTS = "runs_per_second", "agents_per_second"
FLOORS = {RUNS: "celery + raw commits", AGENTS: "raw http + raw commits, one process"}


async def run(bench: Bench) -> list[Result]:
    """Measure each number of workers in turn; the last results carry the curves."""
    runs: list[Result] = []
    agents: list[Result] = []
    for workers in WORKERS:
        idle = _connections(bench)
        async with floor_workers(bench.site, workers), bench.polos(workers=workers, models=True) as polos:
            client, meter = polos
            with floor_client(bench.site) as plain:
                await _warm_up(client, plain, workers)
                runs.append(await _runs(bench, client, meter, plain, workers))
                agents.append(await _agents(bench, client, meter, workers))
                found = {name: number - idle[name] for name, number in _connections(bench).items()}
                runs[-1].notes = {**found, **await _idle(bench, meter)}
    for results, figure in ((runs, RUNS), (agents, AGENTS)):
        results[-1].axis = "worker processes"
        results[-1].curves = _curves(results, figure)
    return [*runs, *agents]


async def _warm_up(client: PolosClient, plain: FloorClient, workers: int) -> None:
    await asyncio.gather(*(tool_agent.run(client, "Look it up") for _ in range(2 * workers)))
    await plain.run_many(10 * workers, batch=10)


async def _runs(bench: Bench, client: PolosClient, meter: Meter, plain: FloorClient, workers: int) -> Result:
    runs = bench.size(2000, 200)
    result = _result(bench, "runs", workers, runs, RUNS)

    async def floor() -> Figures:
        _, seconds = await plain.run_many(runs, batch=BATCH)
        return {RUNS: runs / seconds}

    async def ours() -> Figures:
        before = completed(bench.site.journal_url)
        began = time.perf_counter()
        for start in range(0, runs, BATCH):
            numbers = range(start, min(start + BATCH, runs))
            await client.batch_invoke([BatchWorkflowInput(id=ONE_STEP, payload=str(n)) for n in numbers])
        await until_completed(bench.site.journal_url, before + runs)
        return {RUNS: runs / (time.perf_counter() - began)}

    await measure(bench, result, meter, ours, {FLOORS[RUNS]: floor})
    return result


async def _agents(bench: Bench, client: PolosClient, meter: Meter, workers: int) -> Result:
    agents = bench.size(100, 20)
    site = bench.site
    result = _result(bench, "agents", workers, agents, AGENTS)

    async def floor() -> Figures:
        script = script_of(tool_agent)
        spent = await run_agents(site.floor_url, bench.model_url, script, count=agents, at_once=AT_ONCE)
        return {AGENTS: agents / spent.seconds}

    async def ours() -> Figures:
        room = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with room:
                await tool_agent.run(client, "Look it up")

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(agents)))
        return {AGENTS: agents / (time.perf_counter() - began)}

    await measure(bench, result, meter, ours, {FLOORS[AGENTS]: floor})
    return result


def _result(bench: Bench, what: str, workers: int, units: int, figure: str) -> Result:
    variant = f"{what}, {workers} worker{'s' if workers > 1 else ''}"
    goals = {figure: Goal(None, None)}
    return Result(NAME, variant, bench.site.database, bench.quick, what.removesuffix("s"), units, goals)


def _connections(bench: Bench) -> dict[str, int]:
    """Return how many connections there are to what belongs to polos; floors have databases of their own."""
    with closing(redis.Redis.from_url(bench.site.valkey_url)) as server:
        databases = [int(client["db"]) for client in server.client_list()]
    found = {"valkey_connections": databases.count(POLOS_DATABASE_NUMBER)}
    if bench.site.database == "postgres":
        with connection(bench.site.journal_url) as driver:
            [found["postgres_connections"]] = driver.execute(CONNECTIONS).fetchone()
    return found


async def _idle(bench: Bench, meter: Meter) -> dict[str, float]:
    """Return what all workers together cost in a second in which they have nothing to do."""
    await asyncio.sleep(SETTLE_SECONDS)
    before, commits, began = meter.read(), _commits(bench), time.perf_counter()
    await asyncio.sleep(bench.size(20, 5))
    seconds = time.perf_counter() - began
    used, commits = difference(meter.read(), before), _commits(bench) - commits
    return {
        "idle_worker_cpu_ms_a_s": round(1000 * used["cpu_seconds"] / seconds, 2),
        "idle_postgres_cpu_ms_a_s": round(1000 * used[POSTGRES_CPU] / seconds, 2),
        "idle_postgres_commits_a_s": round(commits / seconds, 1),
    }


def _commits(bench: Bench) -> int:
    """Return how many transactions polos' database has seen, asked from another one."""
    if bench.site.database == "sqlite":
        return 0
    name = make_url(bench.site.journal_url).database
    with connection(bench.site.floor_url) as driver:
        [found] = driver.execute(COMMITS, (name,)).fetchone()
    return int(found)


def _curves(results: list[Result], figure: str) -> dict[str, list[tuple[float, float]]]:
    """Return medians by the number of worker processes."""
    floor = FLOORS[figure]
    medians = [
        (
            statistics.median(figures[figure] for figures in result.polos),
            statistics.median(figures[figure] for figures in result.floors[floor]),
        )
        for result in results
    ]
    return {
        f"{figure}, polos": [(float(n), ours) for n, (ours, _) in zip(WORKERS, medians, strict=True)],
        f"{figure}, {floor}": [(float(n), raw) for n, (_, raw) in zip(WORKERS, medians, strict=True)],
    }
