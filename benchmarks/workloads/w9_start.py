"""W9: what programs and workers pay before their first run: seconds, and the most memory they had.

`import`, `help`, `definitions`, `direct` (starts a run) and `http` (over a server) are programs from start to
end; `embedded` a script that has nothing to begin with, until its model is asked; `worker` one that is
started for a run that waits, until the run has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from socket import create_server

from benchmarks.floors.queue import floor_client
from benchmarks.measuring import Bench, Figures, Goal, Result
from benchmarks.model_server import request_times
from benchmarks.programs import ONE_STEP
from benchmarks.servers import Site
from benchmarks.waiting import completed, until_completed
from benchmarks.workers import REPOSITORY, Fleet, floor_workers, polos_workers

NAME = "w9"
TITLE = "programs and workers start: imports, definitions, first runs"
GOALS = {"s": Goal(0.35, 0.35, less=True), "mb": Goal(60, 60, less=True)}
NO_GOALS = {"s": Goal(None, None, less=True), "mb": Goal(None, None, less=True)}
WORKER_GOALS = {"s": Goal(2.0, 2.0, less=True), "mb": Goal(None, None, less=True)}
EMBEDDED_GOALS = {"first_call_s": Goal(1.5, 1.5, less=True), **NO_GOALS}
START_SECONDS = 60.0
DEFINITIONS = """
from pydantic import BaseModel
from polos import Agent, PolosClient, WorkflowContext, tool

class Word(BaseModel):
    word: str

@tool(description="Look a word up")
async def look_up(ctx: WorkflowContext, input: Word) -> Word:
    return input

agent = Agent(id="agent", provider="openai", model="gpt-4o", tools=[look_up])
client = PolosClient()
"""
# Said by itself: what the kernel tells of an ended process includes the one it was forked from.
SAYS_MEMORY = (
    "\nimport os; from benchmarks.processes import peak_memory_mb; print(peak_memory_mb(os.getpid()))"
)
HELP = """
import sys
from polos.cli.main import app
sys.argv = ["polos", "--help"]
try:
    app()
except SystemExit:
    pass
"""
SCRIPT = """
import asyncio
from polos import Agent, PolosClient

agent = Agent(
    id="a",
    provider="openai",
    model="gpt-4o",
    provider_llm_api="chat_completions",
    system_prompt="script-0-0-0",
)

async def main():
    async with PolosClient() as client:
        await agent.run(client, "hello")

asyncio.run(main())
"""
RAW = "raw HTTP and an SQLite file"
RAW_SCRIPT = """
import asyncio, os, sqlite3
import httpx

async def main():
    driver = sqlite3.connect(":memory:")
    driver.execute("CREATE TABLE run (id text)")
    driver.execute("INSERT INTO run VALUES ('a')")
    driver.commit()
    body = {"model": "gpt-4o", "messages": [{"role": "system", "content": "script-0-0-0"}]}
    async with httpx.AsyncClient() as client:
        await client.post(os.environ["OPENAI_BASE_URL"] + "/chat/completions", json=body)

asyncio.run(main())
"""
STARTS = DEFINITIONS + 'client.sync.invoke("one_step", "word")\n'


async def run(bench: Bench) -> list[Result]:
    """Measure whole processes; a floor only imports what it names."""
    site = bench.site
    with _server(site) as url:
        http = {"POLOS_API_URL": url, "POLOS_LOCAL_MODE": "true", "POLOS_TRANSPORT": "http"}
        results = [
            await _measured(bench, "import", "import polos", {}, "pass", GOALS),
            await _measured(bench, "help", HELP, {}, "import typer, rich", NO_GOALS),
            await _measured(bench, "definitions", DEFINITIONS, {}, "import pydantic", GOALS),
            await _measured(bench, "direct", STARTS, {}, "import pydantic, celery, sqlalchemy", NO_GOALS),
            await _measured(bench, "http", STARTS, http, "import pydantic, httpx", NO_GOALS),
        ]
    results.append(await _worker(bench))
    return [*results, await _embedded(bench)] if site.database == "sqlite" else results


async def _worker(bench: Bench) -> Result:
    """Measure from the start of a worker until it has done what waited for it."""
    site = bench.site
    result = Result(NAME, "worker", site.database, bench.quick, "worker", 1, WORKER_GOALS)
    async with bench.client() as client:
        with floor_client(site) as plain:

            async def submit() -> None:
                await client.invoke(ONE_STEP, "word")

            async def submit_plain() -> None:
                await asyncio.to_thread(lambda: plain.ring(plain.create(1, batch=1)))

            for _ in range(1 + bench.repeats):
                floor = await _until_served(site.floor_url, floor_workers(site, 0), submit_plain)
                result.floors.setdefault("a Celery worker", []).append(floor)
                result.polos.append(await _until_served(site.journal_url, polos_workers(site, 0), submit))
    for values in (result.polos, *result.floors.values()):
        values.pop(0)  # it compiled what was not yet compiled
    result.peak_memory_mb = max(figures["mb"] for figures in result.polos)
    return result


async def _until_served(
    url: str, fleet: AbstractAsyncContextManager[Fleet], submit: Callable[[], Awaitable[None]]
) -> Figures:
    before = completed(url)
    await submit()
    async with fleet as workers:
        began = time.perf_counter()
        ready = asyncio.create_task(workers.add(1))
        await until_completed(url, before + 1)
        seconds = time.perf_counter() - began
        await ready
        return {"s": seconds, "mb": workers.peak_memory_mb()}


async def _embedded(bench: Bench) -> Result:
    """Measure from the start of a script that has neither servers nor a folder to its first model call."""
    result = Result(NAME, "embedded", bench.site.database, bench.quick, "program", 1, EMBEDDED_GOALS)
    model = {"OPENAI_BASE_URL": bench.model_url, "OPENAI_API_KEY": "sk-benchmark"}
    for number in range(1 + bench.repeats):
        floor = await asyncio.to_thread(_first_call, bench, RAW_SCRIPT, model)
        result.floors.setdefault(RAW, []).append(floor)
        home = {"POLOS_HOME": str(bench.site.folder / f"embedded{number}")}
        result.polos.append(await asyncio.to_thread(_first_call, bench, SCRIPT, {**model, **home}))
    for values in (result.polos, *result.floors.values()):
        values.pop(0)
    result.peak_memory_mb = max(figures["mb"] for figures in result.polos)
    return result


def _first_call(bench: Bench, program: str, environment: Mapping[str, str]) -> Figures:
    request_times(bench.model_url)
    began = time.monotonic()
    figures = _program(bench.site, program, environment)
    return {"first_call_s": request_times(bench.model_url)[0] - began, **figures}


async def _measured(
    bench: Bench,
    variant: str,
    program: str,
    environment: Mapping[str, str],
    floor: str,
    goals: Mapping[str, Goal],
) -> Result:
    result = Result(NAME, variant, bench.site.database, bench.quick, "program", 1, goals)
    settings = {**bench.site.environment, **environment}
    await asyncio.to_thread(_program, bench.site, program, settings)  # compiles what is not yet compiled
    for _ in range(bench.repeats):
        found = await asyncio.to_thread(_program, bench.site, floor, settings)
        result.floors.setdefault(floor, []).append(found)
        result.polos.append(await asyncio.to_thread(_program, bench.site, program, settings))
    result.peak_memory_mb = max(figures["mb"] for figures in result.polos)
    return result


def _program(site: Site, source: str, environment: Mapping[str, str]) -> Figures:
    """Run a program to its end."""
    began = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", source + SAYS_MEMORY],
        cwd=site.folder,
        env=_complete(environment),
        stdout=subprocess.PIPE,
        check=True,
    )
    return {"s": time.perf_counter() - began, "mb": float(ended.stdout.splitlines()[-1])}


@contextlib.contextmanager
def _server(site: Site) -> Iterator[str]:
    """Run `polos server` while the context lasts."""
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "polos.cli.main", "server", "--port", str(port), "--loglevel", "error"]
    environment = _complete({**site.environment, "POLOS_LOCAL_MODE": "true"})
    server = subprocess.Popen(command, cwd=site.folder, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        _answers(f"{url}/health")
        yield url
    finally:
        server.terminate()
        server.wait()


def _answers(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _complete(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POLOS_")}
    return {**kept, "PYTHONPATH": str(REPOSITORY), **environment}
