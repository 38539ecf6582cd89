"""F29: many processes on one SQLite file, some of which are not ours and hold its locks for long."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import squatter
from arena import PATIENCE_SECONDS, Arena
from scenarios import note_longest_standstill, only_the_struck_are_dead
from sqlalchemy import select
from week_program import MIXED

from polos.journal.runs import R
from polos.journal.sqlite import BUSY_TIMEOUT_SECONDS
from polos.journal.statements import Statement
from polos.journal.steps import S

SHORT_OF_PATIENCE = (0.1, 0.8)  # how long a lock is held, in times that our connections wait for one
BEYOND_PATIENCE = 1.4  # and the lock to write once in a while
ONE_IN = 3
PROGRAM = squatter.__file__
_ERRORS = (
    Statement(select(R.id, R.error).where(R.error.is_not(None))),
    Statement(select(S.run_id, S.error).where(S.error.is_not(None))),
)


async def contention(arena: Arena) -> None:
    """Have others hold the locks of the file for seconds, kill them and workers: nobody hears of a lock."""
    plan, chance = arena.plan, random.Random(arena.plan.seed)
    await arena.hire(plan.workers)
    turns: Counter[str] = Counter()
    began = time.monotonic()
    async with arena.load(MIXED):
        while time.monotonic() - began < plan.seconds:
            kind = min(squatter.KINDS, key=lambda each: turns[each])
            turns[kind] += 1
            await _squat(arena, kind, *_how_long(kind, turns[kind], chance))
            if arena.faults % 2 == 0:
                arena.crew.kill(chance.choice(arena.crew.living))
                await arena.hire()
    took = time.monotonic() - began
    ended = len(arena.accepted) - arena.unended
    await arena.all_ended()
    await arena.nobody_else_is_listed(arena.crew.living)
    only_the_struck_are_dead(arena)
    note_longest_standstill(arena)
    arena.notes["runs per second"] = f"{ended / took:.2f}"
    _nobody_hears_of_a_lock(arena)
    _is_whole_and_ours(arena)


def _how_long(kind: str, turn: int, chance: random.Random) -> tuple[float, bool]:
    """Return for how many seconds, and whether that ends by a kill."""
    if kind == "write" and turn % ONE_IN == 1:
        return BEYOND_PATIENCE * BUSY_TIMEOUT_SECONDS, False
    return chance.uniform(*SHORT_OF_PATIENCE) * BUSY_TIMEOUT_SECONDS, chance.random() < 0.5


async def _squat(arena: Arena, kind: str, seconds: float, is_killed: bool) -> None:
    """Let another program have the file for so long; kill it in the middle, or let it end."""
    with _squatter(arena, kind, seconds) as program:
        assert program.stdout is not None
        assert await asyncio.to_thread(program.stdout.readline) == "begun\n", f"{kind} did not begin"
        arena.faults += 1
        if is_killed:
            await asyncio.sleep(seconds / 2)  # in the middle
            program.send_signal(signal.SIGKILL)
        code = await asyncio.to_thread(program.wait, PATIENCE_SECONDS)
        if not is_killed and code != 0:
            arena.miss("F29", f"what held the file to {kind} ended with {code}")


@contextmanager
def _squatter(arena: Arena, kind: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, PROGRAM, str(arena.database.path), kind, f"{seconds:g}"]
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    with program:
        try:
            yield program
        finally:
            program.kill()


def _nobody_hears_of_a_lock(arena: Arena) -> None:
    for statement in _ERRORS:
        for run, error in arena.read(statement):
            if "locked" in error:
                arena.miss("F29", f"an error says {error}", run)
    waited = sum("is locked" in line for _, log in arena.crew.logs() for line in log.splitlines())
    arena.notes["waits told in logs"] = str(waited)
    for worker, log in arena.crew.logs():
        if (place := log.find("Traceback")) >= 0:
            arena.miss("told", f"{worker.name} is at a loss:\n{log[max(place - 300, 0) : place + 3000]}")


def _is_whole_and_ours(arena: Arena) -> None:
    """See that the file is as it should be, with nothing in it of those that were killed."""
    path = Path(arena.database.path)
    with closing(sqlite3.connect(path)) as connection:
        [(told,)] = connection.execute("PRAGMA integrity_check").fetchall()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if told != "ok" or squatter.TABLE in tables:
        arena.miss("whole", f"{told}; tables {sorted(tables)}")
    megabytes = Path(f"{path}-wal").stat().st_size / (1 << 20)
    arena.notes["log at the end"] = f"{megabytes:.0f} MB"
