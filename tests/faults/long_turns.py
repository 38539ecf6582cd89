"""Turns of a minute, as reasoning models have them, through an outage and through deployments."""

from __future__ import annotations

import asyncio
import time

from arena import BOOT_SECONDS, PATIENCE_SECONDS, Arena
from processes import Worker
from scenarios import only_the_struck_are_dead
from sqlalchemy import select

from polos.journal.statements import Statement
from polos.journal.steps import S

GRACE_SECONDS = 120.0  # longer than any of these turns takes
SHORT_GRACE_SECONDS = 5.0
CELERY_SECONDS = 15.0  # what Celery itself needs to end, on a loaded machine
DOWN_SECONDS = 20.0  # twice the silence limit
PROGRAM = "week-patient"  # one turn
_TURNS = Statement(
    select(S.run_id, S.owner, S.status, S.finished_at).where(S.kind == "turn", S.started_at.is_not(None))
)


async def outage(arena: Arena) -> None:
    """Stop PostgreSQL for longer than workers may be silent, while hundreds of calls are under way."""
    assert arena.site.server is not None
    await arena.hire(arena.plan.workers)
    await arena.start_many([PROGRAM], arena.plan.runs)
    wanted = arena.plan.runs
    await arena.until(lambda: len(arena.model.calls) >= wanted, PATIENCE_SECONDS, "calls do not begin")
    in_flight = wanted - _finished(arena)
    arena.disconnect()
    await asyncio.to_thread(arena.site.server.stop, "immediate")
    await asyncio.sleep(DOWN_SECONDS)
    await asyncio.to_thread(arena.site.server.begin)
    up_at = time.time()
    arena.faults += 1
    await arena.all_ended(arena.plan.seconds + PATIENCE_SECONDS)
    arena.notes["in flight"] = f"{in_flight} of {wanted}"
    arena.notes["calls"] = str(len(arena.model.calls))
    arena.notes["first recorded"] = f"{min(_ends(arena, up_at), default=up_at) - up_at:.1f} s after it is up"
    if len(arena.model.calls) != wanted:
        arena.miss("O7", f"{len(arena.model.calls)} calls were made for {wanted} turns")
    if not in_flight:
        arena.miss("O8", "no call was under way")
    only_the_struck_are_dead(arena)


def _finished(arena: Arena) -> int:
    return len(_ends(arena, 0.0))


def _ends(arena: Arena, after: float) -> list[float]:
    return [row[3] for row in arena.read(_TURNS) if row[3] is not None and row[3] > after]


async def deployments(arena: Arena) -> None:
    """Replace each worker, old and new side by side, with a grace longer than any turn: none is repeated."""
    await _deploy(arena, GRACE_SECONDS)
    if repeated := arena.evidence().calls_repeated:
        arena.miss("O7", f"{repeated} calls were repeated though every worker was given time")


async def hasty_deployments(arena: Arena) -> None:
    """The same with a grace shorter than turns: only what was under way at each end is called again."""
    cut = await _deploy(arena, SHORT_GRACE_SECONDS)
    repeated = arena.evidence().calls_repeated
    arena.notes["cut off"] = str(cut)
    if repeated > cut:
        arena.miss("O7", f"{repeated} calls were repeated, and {cut} were under way when workers ended")


async def _deploy(arena: Arena, grace: float) -> int:
    """Return how many turns were under way at workers when they were asked to end."""
    crew, cut = await arena.hire(arena.plan.workers), 0
    async with arena.load([PROGRAM]):
        await arena.until(
            lambda: _under_way(arena) >= arena.plan.at_once // 2, BOOT_SECONDS, "turns do not begin"
        )
        for worker in crew:
            await arena.hire()
            cut += _under_way(arena, worker)
            await _ends_in_time(arena, worker, grace)
    await arena.all_ended(arena.plan.seconds + PATIENCE_SECONDS)
    await arena.nobody_else_is_listed(arena.crew.living)
    return cut


async def _ends_in_time(arena: Arena, worker: Worker, grace: float) -> None:
    arena.crew.dismiss(worker)
    if grace < GRACE_SECONDS:  # it may cut calls off, at any moment until it is gone
        arena.crew.cut_short(worker)
    arena.faults += 1
    began = time.monotonic()
    code = await arena.exited(worker, grace + CELERY_SECONDS)
    if grace < GRACE_SECONDS:
        arena.crew.cut_short(worker)
    took = time.monotonic() - began
    longest = max(took, float(arena.notes.get("slowest exit", "0 s").split()[0]))
    arena.notes["slowest exit"] = f"{longest:.1f} s"
    if code != 0:
        arena.miss("exit", f"{worker.name} ended with {code} after {took:.1f} s, grace {grace:g} s")


def _under_way(arena: Arena, worker: Worker | None = None) -> int:
    """Return how many turns are executed, by this worker or by all."""
    ids = {row["id"] for row in arena.workers() if worker is None or row["hostname"] == worker.name}
    return sum(owner in ids and status == "running" for _, owner, status, _ in arena.read(_TURNS))
