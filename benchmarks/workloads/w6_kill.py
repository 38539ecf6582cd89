"""W6: a run of 20 steps of 200 ms, its worker killed in the middle: until its next step begins elsewhere."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from benchmarks.counts import Meter
from benchmarks.measuring import Bench, Figures, Goal, Result, measure
from benchmarks.programs import SlowSteps, slow_steps
from benchmarks.servers import Site
from benchmarks.waiting import LOOK_AGAIN_SECONDS, PATIENCE_SECONDS
from benchmarks.workers import REPOSITORY
from polos import PolosClient

NAME = "w6"
TITLE = "kill -9 of the owner until the run's next step elsewhere"
GOALS = {"seconds": Goal(3.0, 3.0, less=True), "repeated_steps": Goal(1, 1, less=True)}
WORKERS = 2
STEP_SECONDS = 0.2
FLOOR = "a process that waits for the lock"


@dataclass(frozen=True)
class Begun:
    """A step that began, by the clock all processes share."""

    pid: int
    number: int
    at: float


async def run(bench: Bench) -> list[Result]:
    """Kill the owner once per repeat, with another worker alive; a replacement starts for the next one."""
    steps = bench.size(20, 10)
    result = Result(NAME, "", bench.site.database, bench.quick, "step", steps, GOALS)
    async with bench.polos(workers=WORKERS) as (client, meter):

        async def ours() -> Figures:
            return await _strike(bench, client, meter, steps)

        async def floor() -> Figures:
            return await _take_over(bench.site, steps)

        await measure(bench, result, meter, ours, {FLOOR: floor}, counted=False)
    return [result]


async def _strike(bench: Bench, client: PolosClient, meter: Meter, steps: int) -> Figures:
    await meter.fleet.add(WORKERS - len(meter.fleet.workers))
    log = bench.site.folder / f"{uuid.uuid4().hex}.log"
    log.touch()
    ended = asyncio.create_task(
        slow_steps.run(client, SlowSteps(count=steps, seconds=STEP_SECONDS, log=str(log)))
    )
    before = await _until_begun(log, steps // 2)
    await asyncio.sleep(STEP_SECONDS / 2)  # in the middle of a step
    owner = before[-1].pid
    killed_at = time.monotonic()
    meter.fleet.kill(owner)
    assert await ended == steps
    return _figures(log, owner, killed_at, steps)


async def _take_over(site: Site, steps: int) -> Figures:
    """Kill one of two processes of the floor, the one that has the lock."""
    run = uuid.uuid4().hex
    log = site.folder / f"{run}.log"
    log.touch()
    processes = [_waiter(site, run, log, steps) for _ in range(WORKERS)]
    try:
        before = await _until_begun(log, steps // 2)
        await asyncio.sleep(STEP_SECONDS / 2)
        [owner] = [process for process in processes if process.pid == before[-1].pid]
        killed_at = time.monotonic()
        owner.kill()
        [successor] = [process for process in processes if process is not owner]
        assert await asyncio.to_thread(successor.wait, PATIENCE_SECONDS) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return _figures(log, owner.pid, killed_at, steps)


def _waiter(site: Site, run: str, log: Path, steps: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.floors.takeover", site.floor_url, run, str(log)]
    return subprocess.Popen([*command, str(steps), str(STEP_SECONDS)], cwd=REPOSITORY)


def _figures(log: Path, owner: int, killed_at: float, steps: int) -> Figures:
    after = [step for step in _begun(log) if step.pid != owner]
    return {"seconds": after[0].at - killed_at, "repeated_steps": len(_begun(log)) - steps}


async def _until_begun(log: Path, count: int) -> list[Begun]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(_begun(log)) < count:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
    return _begun(log)


def _begun(log: Path) -> list[Begun]:
    lines = [line.split() for line in log.read_text().splitlines()]
    return [Begun(int(pid), int(number), float(at)) for pid, number, at in lines]
