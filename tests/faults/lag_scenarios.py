"""F10: a database that has answered commits and lost them when it crashed."""

from __future__ import annotations

import asyncio
import random
import time

from arena import Arena
from sqlalchemy import select
from week_program import MIXED

from polos.journal.runs import R
from polos.journal.statements import Statement

NOTICED_SECONDS = 5.0  # in which everybody finds out; the audits look each second
NOTE_AGAIN_SECONDS = 0.25
LOST_SECONDS = 2.0  # of commits, at most
_noting: set[asyncio.Task[None]] = set()
_SEQS = Statement(select(R.id, R.seq))


async def lagging_commits(arena: Arena) -> None:
    """Crash a PostgreSQL that is late in writing: what it forgot is executed again, and ends as it should."""
    plan, chance = arena.plan, random.Random(arena.plan.seed)
    await arena.hire(plan.workers)
    await asyncio.to_thread(arena.site.server.checkpoint)  # that they are there is not forgotten
    ends = time.monotonic() + plan.seconds
    lost_runs = lost_outcomes = started_again = 0
    async with arena.load(MIXED):
        while time.monotonic() < ends:
            await asyncio.sleep(chance.uniform(0.5, 1.0) * min(plan.seconds / 4, 5.0))
            await asyncio.to_thread(arena.site.server.checkpoint)
            await asyncio.sleep(chance.uniform(0.1, LOST_SECONDS))
            before = _seqs(arena)
            await _crash(arena)
            after = _seqs(arena)
            lost_runs += len(before.keys() - after.keys())
            lost_outcomes += sum(max(seq - after.get(run, 0), 0) for run, seq in before.items())
            started_again += await _start_again(arena)
    await _start_again(arena)
    await arena.all_ended()
    await arena.nobody_else_is_listed(arena.crew.living)
    arena.notes["runs lost"] = f"{lost_runs}, of them accepted {started_again}"
    arena.notes["commits lost"] = f"at least {lost_outcomes}"
    if not lost_outcomes:
        arena.miss("O8", "the database lost no commit")


def _seqs(arena: Arena) -> dict[str, int]:
    return {row[0]: int(row[1]) for row in arena.read(_SEQS)}


async def _crash(arena: Arena) -> None:
    arena.crew.forgotten()
    arena.disconnect()
    await asyncio.to_thread(_crash_and_recover, arena)
    arena.faults += 1
    noting = asyncio.create_task(_until_everybody_noticed(arena))
    _noting.add(noting)
    noting.add_done_callback(_noting.discard)


def _crash_and_recover(arena: Arena) -> None:
    arena.site.server.kill()
    arena.crew.forgotten()
    arena.site.server.start()


async def _until_everybody_noticed(arena: Arena) -> None:
    """Take note of work that is begun from what was lost, and given up once that is found out."""
    for _ in range(int(NOTICED_SECONDS / NOTE_AGAIN_SECONDS)):
        await asyncio.sleep(NOTE_AGAIN_SECONDS)
        arena.crew.forgotten()


async def _start_again(arena: Arena) -> int:
    """Start what was accepted and then forgotten: a client that keeps its keys can."""
    lost = set(arena.accepted) - _seqs(arena).keys()
    for run in lost:
        await arena.start_again(run)
    return len(lost)
