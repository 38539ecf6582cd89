"""F24: eight worker processes share an allowance of model calls, and the server that counts it forgets."""

from __future__ import annotations

import asyncio
import bisect
import re
from dataclasses import dataclass

from arena import PATIENCE_SECONDS, Arena
from sqlalchemy import select

from polos.journal.statements import Statement
from polos.journal.steps import S

PER_SECOND = 10
TOLERANCE = 1  # a call takes a moment from its permit to the model
LONGER_SECONDS = 5.0
LATE_SECONDS = 0.5  # what came so late that it is counted with others, on a loaded machine
BETWEEN_FLUSHES_SECONDS = 5.0
PROGRAM = "week-patient"  # one turn
CLAIMED = Statement(select(S.run_id, S.name, S.started_at).where(S.kind == "turn"))
CALLED = re.compile(rf"Task {PROGRAM}\.turn\[\S+ succeeded in \S+ 'completed'")
SETTINGS = {
    "FAULT_CALLER": "anybody",  # one address for all: an allowance is of a model, a key and an address
    "POLOS_MODEL_LIMITS": f"openai/*={PER_SECOND}rps",
    "POLOS_MODEL_MAX_WAIT_SECONDS": f"{PATIENCE_SECONDS:g}",
    "POLOS_RING_AGAIN_SECONDS": "2",
}


async def shared_rate(arena: Arena) -> None:
    """Have many turns wait for their place, and flush Redis again and again: no second has more calls."""
    await arena.hire(arena.plan.workers)
    await arena.start_many([PROGRAM], arena.plan.runs)
    ending = asyncio.create_task(arena.all_ended(arena.plan.runs / PER_SECOND * 2 + PATIENCE_SECONDS))
    while not ending.done():
        await asyncio.wait([ending], timeout=BETWEEN_FLUSHES_SECONDS)
        if not ending.done():
            await asyncio.to_thread(arena.broker.forget)
            arena.faults += 1
    _judge(arena, _began(arena))


@dataclass(frozen=True)
class Began:
    """A model call: its turn was claimed, asked for its permit, and its request arrived at the model."""

    claimed_at: float
    arrived_at: float


def _began(arena: Arena) -> list[Began]:
    claimed = {f"{run}:{step}": at for run, step, at in arena.read(CLAIMED)}
    return [Began(claimed[call.key], call.began_at) for call in arena.model.calls]


def _judge(arena: Arena, began: list[Began]) -> None:
    arrivals = sorted(each.arrived_at for each in began)
    certain = _most_for_certain(began)
    longer = max(_within(LONGER_SECONDS, arrivals))
    callers = {worker.name for worker, log in arena.crew.logs() if CALLED.search(log)}
    arena.notes["busiest second"] = f"{max(_within(1.0, arrivals))} arrived, {certain} for certain"
    arena.notes[f"busiest {LONGER_SECONDS:g} s"] = str(longer)
    arena.notes["per second"] = f"{(len(arrivals) - 1) / (arrivals[-1] - arrivals[0]):.2f}"
    arena.notes["callers"] = str(len(callers))
    if certain > PER_SECOND + TOLERANCE:
        arena.miss("F24", f"{certain} calls began within a second, {PER_SECOND} are allowed")
    if longer > PER_SECOND * (LONGER_SECONDS + LATE_SECONDS) + TOLERANCE:
        arena.miss("F24", f"{longer} calls arrived within {LONGER_SECONDS:g} s, {PER_SECOND} a second may")
    if len(callers) < arena.plan.workers:
        arena.miss("O8", f"only {sorted(callers)} made calls")


def _within(seconds: float, arrivals: list[float]) -> list[int]:
    """Return how many calls arrived in so many seconds from each one on."""
    return [bisect.bisect_left(arrivals, at + seconds) - place for place, at in enumerate(arrivals)]


def _most_for_certain(began: list[Began]) -> int:
    """Return how many calls were permitted within one second, however late a busy machine sent them."""
    return max(
        sum(
            other.claimed_at >= first.claimed_at and other.arrived_at < first.claimed_at + 1.0
            for other in began
        )
        for first in began
    )
