"""Runs that kill their workers, among others that do nothing of the kind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from arena import LOOK_AGAIN_SECONDS, PATIENCE_SECONDS, Arena
from crew import name_of
from poison_program import CURED, POISON
from processes import Worker
from sqlalchemy import select
from week_program import MIXED

from polos.journal.runs import R
from polos.journal.statements import Statement

POISONS = ("poison-run", "poison-step", "poison-tool", "poison-turn")
BYSTANDERS = (*MIXED, "week-sleeper")
ENDED = {"failed", "completed", "cancelled"}
DEATHS = 3  # POLOS_MAX_CRASHES
CGROUPS = Path("/sys/fs/cgroup/memory")
MEMORY_BYTES = 1 << 30
OVER_SECONDS = 1800.0  # those under suspicion go on a few at a time
CLI = "import sys; from polos.cli.main import app; sys.argv[0] = 'polos'; app()"
SETTINGS = {
    "POLOS_IMPORTS": "week_program,poison_program",
    "POLOS_WAIT_THRESHOLD_SECONDS": "600",  # bystanders wait in memory
    "POLOS_DOORBELLS_PER_ROUTE": "1000",
    "POLOS_RING_AGAIN_SECONDS": "1",
    "POLOS_RING_AGAIN_MAX_SECONDS": "4",
}
_STATES = Statement(select(R.id, R.status, R.crashes, R.error))


async def bystanders(arena: Arena) -> None:
    """Poison one worker after another while hundreds of runs are resident with it: those lose nothing."""
    cure = arena.folder / "cure"
    arena.environment["FAULT_CURE"] = str(cure)
    with _memory_limit(arena) as limit:
        await _hire(arena, limit)
        await arena.start_many(BYSTANDERS, arena.plan.runs)
        await arena.until(lambda: _owned(arena) >= arena.plan.runs // 2, OVER_SECONDS, "they do not begin")
        how = ("segfault", "kill", "oom" if limit else "kill", "segfault")
        poisons = {
            name: await _poisoned(arena, name, death) for name, death in zip(POISONS, how, strict=True)
        }
        arena.notes["resident at first"] = str(_owned(arena))
        began = time.monotonic()
        while not _have_ended(arena, [*arena.accepted, *poisons.values()]):
            await _replace(arena, limit)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            assert time.monotonic() - began < OVER_SECONDS, "runs go on"
        arena.notes["all over after"] = f"{time.monotonic() - began:.0f} s"
        _were_judged(arena, poisons)
        await _cured(arena, cure, poisons)
        _take_note_of_deaths(arena)


def _owned(arena: Arena) -> int:
    return sum(status == "running" for _, status, _, _ in arena.read(_STATES))


async def _poisoned(arena: Arena, program: str, how: str) -> str:
    payload: dict[str, Any] = {"how": how}
    if program == "poison-turn":
        payload = {"input": "Drink", "streaming": False}
    return (await arena.client.invoke(program, payload)).id


def _have_ended(arena: Arena, runs: Iterable[str]) -> bool:
    states = {row[0]: row[1] for row in arena.read(_STATES)}
    return all(states[run] in ENDED for run in runs)


async def _hire(arena: Arena, limit: Path | None) -> Worker:
    worker = arena.crew.hire()
    if limit is not None:
        (limit / "cgroup.procs").write_text(str(worker.pid))
    await arena.serving(worker)
    return worker


async def _replace(arena: Arena, limit: Path | None) -> None:
    """Hire somebody for each worker that is gone, as whoever supervises workers does."""
    _take_note_of_deaths(arena)
    for _ in range(arena.plan.workers - len(arena.crew.living)):
        await _hire(arena, limit)


def _take_note_of_deaths(arena: Arena) -> None:
    """Count every poison as a strike against the worker that swallowed it."""
    noted = {(strike.worker, strike.at) for strike in arena.crew.strikes}
    for entry in arena.ledger.read():
        if entry.name == POISON and (entry.worker, entry.at) not in noted:
            arena.crew.killed_itself(entry.worker, entry.at)
    for worker in arena.crew.workers:  # memory is eaten for a while: others go on meanwhile
        strikes = [strike for strike in arena.crew.strikes if strike.worker == name_of(worker)]
        if len(strikes) == 1 and not worker.lives:
            arena.crew.killed_itself(name_of(worker), time.time())


def _were_judged(arena: Arena, poisons: dict[str, str]) -> None:
    states = {row[0]: row for row in arena.read(_STATES)}
    doses: dict[str, int] = {}
    for entry in arena.ledger.read():
        if entry.name == POISON:
            doses[entry.run] = doses.get(entry.run, 0) + 1
    arena.notes["doses"] = ", ".join(
        f"{name} {doses.get('arsenic' if name == 'poison-turn' else run, 0)}" for name, run in poisons.items()
    )
    for name, run in poisons.items():
        _, status, _, error = states[run]
        if status != "failed" or "worker_lost" not in (error or ""):
            arena.miss("F20", f"{name} is {status}: {error}", run)
        swallowed = doses.get("arsenic" if name == "poison-turn" else run, 0)
        if swallowed > DEATHS:
            arena.miss("F20", f"{name} killed {swallowed} workers", run)


async def _cured(arena: Arena, cure: Path, poisons: dict[str, str]) -> None:
    """Retry by hand what was put away, once its cause is mended."""
    await asyncio.to_thread(cure.touch)
    for run in poisons.values():
        done = await asyncio.to_thread(_command, arena, "runs", "retry", run)
        if done.returncode:
            arena.miss("retry", done.stdout + done.stderr, run)
    await arena.until(lambda: _have_ended(arena, poisons.values()), PATIENCE_SECONDS, "what is cured goes on")
    for name, run in poisons.items():
        record = await arena.client.get_execution(run)
        if record["status"] != "completed" or CURED not in str(record["result"]):
            arena.miss("retry", f"{name}, cured, is {record['status']}: {record['error']}", run)


def _command(arena: Arena, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CLI, *arguments],
        env={**os.environ, **arena.environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@contextmanager
def _memory_limit(arena: Arena) -> Iterator[Path | None]:
    """Bound the memory of all workers together, where this machine lets us: a cgroup, None without."""
    group = CGROUPS / f"polos-{os.getpid()}-{arena.folder.name}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(MEMORY_BYTES * arena.plan.workers))
    except OSError as error:
        arena.notes["no OOM"] = str(error)
        yield None
        return
    try:
        yield group
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(OSError):  # it may have ended
                (CGROUPS / "cgroup.procs").write_text(pid)
        group.rmdir()
