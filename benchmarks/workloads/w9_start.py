"""W9: what a program pays before its first run is started: seconds from start to end, and the most memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from socket import create_server

from benchmarks.measuring import Bench, Figures, Goal, Result
from benchmarks.servers import Site
from benchmarks.workers import REPOSITORY

NAME = "w9"
TITLE = "a program starts: definitions, then a run that is started directly, or over HTTP"
GOALS = {"s": Goal(0.35, 0.35, less=True), "mb": Goal(60, 60, less=True)}
NO_GOALS = {"s": Goal(None, None, less=True), "mb": Goal(None, None, less=True)}
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
STARTS = DEFINITIONS + 'client.sync.invoke("one_step", "word")\n'


async def run(bench: Bench) -> list[Result]:
    """Measure whole processes; a floor only imports what it names."""
    site = bench.site
    with _server(site) as url:
        http = {"POLOS_API_URL": url, "POLOS_LOCAL_MODE": "true", "POLOS_TRANSPORT": "http"}
        return [
            await _measured(bench, "definitions", DEFINITIONS, {}, "import pydantic", GOALS),
            await _measured(bench, "direct", STARTS, {}, "import pydantic, celery, sqlalchemy", NO_GOALS),
            await _measured(bench, "http", STARTS, http, "import pydantic, httpx", NO_GOALS),
        ]


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
    return {"s": time.perf_counter() - began, "mb": float(ended.stdout)}


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
