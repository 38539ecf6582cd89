"""W14: bytes that runs, steps, events and agents leave in the database, and what `polos gc` gives back."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from contextlib import closing

from benchmarks.floors.agents import run_agents
from benchmarks.floors.journal import Command, claim, create, finish, open_journal
from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.programs import NOTHING, ONE_STEP, Steps, many_steps, script_of, tool_agent
from benchmarks.servers import Site
from benchmarks.waiting import COMPLETED, connection, journal_bytes, until, until_completed
from benchmarks.workers import REPOSITORY
from polos import BatchWorkflowInput
from polos.client import PolosClient
from polos.events import EventData

NAME = "w14"
TITLE = "bytes in the database, and what is given back"
GOALS = {
    "run_bytes": Goal(None, None, less=True),
    "step_bytes": Goal(None, None, less=True),
    "event_bytes": Goal(None, None, less=True),
    "agent_bytes": Goal(None, None, less=True),
    "grown_again": Goal(None, None, less=True),
}
BATCH = 500
AT_ONCE = 20
DAY = 86_400
A_MOMENT = "0.0000001"  # days: everything that has ended
FLOOR = "raw rows"
Load = Callable[[], Awaitable[None]]


async def run(bench: Bench) -> list[Result]:
    """Measure how the database grows with each kind of work, and again after everything was removed."""
    runs = bench.size(2000, 200)
    result = Result(NAME, "", bench.site.database, bench.quick, "run", runs, GOALS)
    async with bench.polos(workers=1, models=True) as (client, meter):

        async def ours() -> Figures:
            return await _ours(bench, client, runs)

        async def floor() -> Figures:
            return await _floor(bench, runs)

        await tool_agent.run(client, "Look it up")
        await measure(bench, result, meter, ours, {FLOOR: floor}, counted=False)
    result.notes = _growth_of_a_day(result.polos[-1])
    return [result]


async def _ours(bench: Bench, client: PolosClient, runs: int) -> Figures:
    """Begin with tables that are empty and have no room left over from the repeat before."""
    site = bench.site
    await _collect(site, vacuum="VACUUM FULL")
    loads: dict[str, tuple[Load, int]] = {
        "run_bytes": (lambda: _runs(site, client, runs), runs),
        "step_bytes": (lambda: _steps(client, runs), runs),
        "event_bytes": (lambda: _events(client, runs), runs),
        "agent_bytes": (lambda: _agents(client, runs // 10), runs // 10),
    }
    empty = journal_bytes(site.journal_url)
    figures = {name: await _grown(site.journal_url, load, units) for name, (load, units) in loads.items()}
    full = journal_bytes(site.journal_url)
    await _collect(site, vacuum="VACUUM")
    for load, _ in loads.values():
        await load()
    again = journal_bytes(site.journal_url)
    return {**figures, "grown_again": (again - full) / (full - empty)}


async def _floor(bench: Bench, runs: int) -> Figures:
    """Write the same rows into tables that have their keys, and no index to find anything else by."""
    url = bench.site.floor_url

    async def agents() -> None:
        script, count = script_of(tool_agent), runs // 10
        await run_agents(url, bench.model_url, script, count=count, at_once=AT_ONCE)

    row = await _grown(url, lambda: asyncio.to_thread(_raw_steps, url, runs), runs)
    return {
        "run_bytes": await _grown(url, lambda: asyncio.to_thread(_raw_runs, url, runs), runs),
        "step_bytes": row,
        "event_bytes": row,
        "agent_bytes": await _grown(url, agents, runs // 10),
    }


async def _grown(url: str, load: Load, units: int) -> float:
    before = journal_bytes(url)
    await load()
    return (journal_bytes(url) - before) / units


async def _runs(site: Site, client: PolosClient, runs: int) -> None:
    with connection(site.journal_url) as driver:
        [before] = driver.execute(COMPLETED).fetchone()
    for start in range(0, runs, BATCH):
        numbers = range(start, min(start + BATCH, runs))
        await client.batch_invoke([BatchWorkflowInput(id=ONE_STEP, payload=str(n)) for n in numbers])
    await until_completed(site.journal_url, before + runs)


async def _steps(client: PolosClient, steps: int) -> None:
    await many_steps.run(client, Steps(count=steps))


async def _events(client: PolosClient, events: int) -> None:
    topic = f"benchmark/{uuid.uuid4()}"
    for start in range(0, events, BATCH):
        numbers = range(start, min(start + BATCH, events))
        await client.publish_events(topic, [EventData(event_type="said", data=NOTHING) for _ in numbers])


async def _agents(client: PolosClient, agents: int) -> None:
    room = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with room:
            await tool_agent.run(client, "Look it up")

    await asyncio.gather(*(one() for _ in range(agents)))


def _raw_runs(url: str, runs: int) -> None:
    output = json.dumps(NOTHING)
    with closing(open_journal(url)) as journal:
        for _ in range(runs):
            run = str(uuid.uuid4())
            first: list[Command] = [*create(run), *claim(run)]
            journal.commit(first, journal.step(run, "step", output), finish(run, output))


def _raw_steps(url: str, steps: int) -> None:
    run = str(uuid.uuid4())
    with closing(open_journal(url)) as journal:
        journal.commit(create(run), claim(run))
        for number in range(steps):
            journal.commit(journal.step(run, f"step{number}", json.dumps(NOTHING)))


async def _collect(site: Site, *, vacuum: str) -> None:
    """Remove all that has ended, as `polos gc` does; what autovacuum does on PostgreSQL is not waited for."""
    await asyncio.to_thread(_gc, site)
    with connection(site.journal_url) as driver:
        if site.database == "postgres":
            driver.execute(vacuum)
    await until(site.journal_url, "SELECT CASE WHEN count(*) = 0 THEN 1 ELSE 0 END FROM run", 1)


def _gc(site: Site) -> None:
    command = [sys.executable, "-m", "polos.cli.main", "gc", "--days", A_MOMENT]
    memories = {"POLOS_SESSION_RETENTION_DAYS": A_MOMENT}
    environment = {**_environment(), **site.environment, **memories}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True)


def _growth_of_a_day(figures: Figures) -> dict[str, float]:
    """Return gigabytes of a day at one a second, all day long."""
    return {
        f"{name.removesuffix('_bytes')}_gb_a_day": round(value * DAY / 1e9, 3)
        for name, value in figures.items()
        if name.endswith("_bytes")
    }


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("POLOS_")}
