"""F25: runs of every kind are cancelled at any moment, parents of fifty children too."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

from arena import LOOK_AGAIN_SECONDS, PATIENCE_SECONDS, Arena
from sqlalchemy import bindparam, select
from week_program import MIXED

from polos.journal.runs import R
from polos.journal.statements import Statement

SETTINGS = {"POLOS_IMPORTS": "week_program,storm_program"}
STORM = "storm-parent"
TREE = Statement(select(R.finished_at).where(R.root_id == bindparam("root")))
TERMINAL_SECONDS = 5.0
EXECUTORS_SECONDS = 2.0  # until whoever executes hears of it: a nudge, or the look of each second
PARENTS = 6  # one of so many that are cancelled has fifty children


async def cancel_storm(arena: Arena) -> None:
    """Cancel every second run at a random moment: nothing of it goes on, and the others lose nothing."""
    chance = random.Random(arena.plan.seed)
    await arena.hire(arena.plan.workers)
    spared = await arena.start_many(MIXED, arena.plan.runs // 2)
    doomed = await asyncio.gather(*(_doomed(arena, number, chance) for number in range(arena.plan.runs // 2)))
    await arena.all_ended()
    took = sorted(seconds for _, _, seconds in doomed)
    arena.notes["spared"] = str(len(spared))
    arena.notes["cancel p50/p99"] = f"{took[len(took) // 2]:.2f}/{took[int(len(took) * 0.99)]:.2f} s"
    arena.notes["trees"] = str(sum(len(arena.evidence().tree(root)) for root, _, _ in doomed))
    for miss in _goes_on(arena, {root: at for root, at, _ in doomed}):
        arena.miss("F25", miss)


async def _doomed(arena: Arena, number: int, chance: random.Random) -> tuple[str, float, float]:
    """Start a run and cancel it; return its id, when it was cancelled, and how long its tree took to end."""
    await asyncio.sleep(chance.uniform(0, arena.plan.seconds))
    program = STORM if number % PARENTS == 0 else MIXED[number % len(MIXED)]
    root = await _started(arena, program, number)
    await asyncio.sleep(chance.uniform(0, 3 * arena.plan.pace_seconds + 1.0))
    began = time.monotonic()
    if await arena.client.cancel_execution(root):
        arena.faults += 1
    at = time.time()
    while not _has_ended(arena, root):
        assert time.monotonic() - began < PATIENCE_SECONDS, f"{root} goes on"
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    took = time.monotonic() - began
    if took > TERMINAL_SECONDS:
        arena.miss("F25", f"{program} ended {took:.1f} s after it was cancelled", root)
    return root, at, took


async def _started(arena: Arena, program: str, number: int) -> str:
    if program == STORM:
        return (await arena.client.invoke(program, {"number": number})).id
    root = await arena.start(program)
    del arena.accepted[root]  # it is not to end well
    return root


def _has_ended(arena: Arena, root: str) -> bool:
    tree = arena.read(TREE, root=root)
    return bool(tree) and all(row[0] is not None for row in tree)


def _goes_on(arena: Arena, cancelled_at: dict[str, float]) -> Iterator[str]:
    """Say what was recorded, claimed or done for a run after it had been cancelled."""
    evidence = arena.evidence()
    for root, at in cancelled_at.items():
        runs = {run["id"]: run for run in evidence.tree(root)}
        if any(run["status"] not in {"cancelled", "completed"} for run in runs.values()):
            yield f"{root} has runs that are {sorted({run['status'] for run in runs.values()})}"
        for step in evidence.steps_in(root):
            yield from _late(step, runs[step["run_id"]])
        if runs[root]["status"] == "cancelled":
            late = [entry for entry in evidence.entries[root] if entry.at > at + EXECUTORS_SECONDS]
            if any(entry.phase == "start" for entry in late):
                yield f"{root} began {late[0].name} {late[0].at - at:.1f} s after it was cancelled"


def _late(step: dict[str, Any], run: dict[str, Any]) -> Iterator[str]:
    if run["status"] != "cancelled":
        return
    is_claimed = step["kind"] == "turn" and step["owner"] is not None and step["started_at"] is not None
    if is_claimed and step["started_at"] > run["finished_at"] + 0.01:
        yield f"{step['name']} of {run['name']} {run['id']} was claimed after the cancel"
    if step["seq"] is not None and step["seq"] > run["seq"]:
        yield f"{step['name']} of {run['name']} {run['id']} was recorded after the cancel"
