"""F13: doorbells and nudges come late, in another order, or for minutes not at all and then all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from arena import PATIENCE_SECONDS, Arena
from holdback import Holdback, holdback
from places import Ground, Site, new_database
from scenarios import claimed_once
from sqlalchemy import func, select
from week_program import MIXED

from polos.journal.runs import R
from polos.journal.statements import Statement

SEED = 1
SHUT_TIMES = 4.0  # as long as the latest message is late
DOORBELLS = 20  # in a row, of the longest program: each may be late
_BEGUN = Statement(select(func.count()).where(R.started_at.is_not(None)))


@contextmanager
def behind_holdback(ground: Ground) -> Iterator[Site]:
    """A broker that clients and workers reach only through who holds back what they tell."""
    with new_database(ground) as site, holdback(seed=SEED) as between:
        environment = {"POLOS_BROKER_URL": f"redis://127.0.0.1:{between.port}/0"}
        yield Site(site.database_url, holdback=between, environment=environment)


async def late_messages(arena: Arena) -> None:
    """Make each message late, then shut them all off, and release what has gathered, the newest first."""
    plan, between = arena.plan, arena.site.holdback
    assert between is not None
    between.open(arena.broker.redis.port)
    await arena.hire(plan.workers)
    patience = PATIENCE_SECONDS + DOORBELLS * plan.seconds
    between.late_seconds = plan.seconds
    await arena.start_many(MIXED, plan.runs)
    await arena.all_ended(patience)
    await _shut_off(arena, between)
    await arena.all_ended(patience)
    between.late_seconds = 0.0
    await arena.until(lambda: not between.held, plan.seconds + PATIENCE_SECONDS, "messages are held back")
    arena.faults += between.told
    claimed_once(arena)
    _note(arena, between)


async def _shut_off(arena: Arena, between: Holdback) -> None:
    """Start runs of which no worker hears, for so long that they are rung again and again."""
    begun = arena.read(_BEGUN)
    between.shut()
    roots = await arena.start_many(MIXED, arena.plan.runs)
    await asyncio.sleep(SHUT_TIMES * arena.plan.seconds)  # they are shut off for a time
    if arena.read(_BEGUN) != begun:
        arena.miss("O8", "a run was begun while all messages were held back: some find another way")
    arena.notes["gathered"] = f"{between.held} messages for {len(roots)} runs"
    between.release()


def _note(arena: Arena, between: Holdback) -> None:
    arena.notes["overtaken"] = f"{between.overtaken} of {between.told}"
    arena.notes["latest"] = f"{between.longest_seconds:.1f} s"
    if not between.overtaken:
        arena.miss("O8", "no message came in another order")
