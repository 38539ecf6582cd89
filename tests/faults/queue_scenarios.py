"""F22 and F23: fair shares behind a backlog, and a limit of one whose holders are killed."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from arena import BOOT_SECONDS, BURIAL_SECONDS, LOOK_AGAIN_SECONDS, PATIENCE_SECONDS, Arena
from crew import Strike, name_of
from ledger import Entry
from orders import Order, Series
from promises import Wanted
from queue_program import FEW, PARTS
from sqlalchemy import func, select

from polos.journal.runs import R
from polos.journal.statements import Statement
from polos.transport import RunRequest

SETTINGS = {"POLOS_IMPORTS": "week_program,queue_program", "POLOS_MAX_CRASHES": "1000"}
KEYS = ("ann", "bob", "eve")
WAITING_PER_KEY = 3
MOVES_ON_SECONDS = BURIAL_SECONDS  # the promise is silence limit + 5 s; this is a loaded machine's
LATE_COMERS = 10  # of each kind
MODEST = 40  # runs of a queue with a limit beside the backlog
STARTS_SECONDS = 10.0  # the promise is 2, and the figure is noted; this is a loaded machine's
BATCH = 500
WARM = 400  # entries of the ledger until workers go at their own speed
QUEUED = Statement(select(func.count()).where(R.name == "queue-tenant", R.status == "queued"))


@dataclass(frozen=True)
class Waiting(Wanted):
    """A run of a queue program: `side` is its key."""

    side: str = ""

    @property
    def order(self) -> Order:
        parts = PARTS if self.program == "queue-holder" else ("work",)
        return Series(f"{self.side}.{part}" for part in parts)

    def accepts(self, output: Any) -> bool:
        return bool(output == self.number)

    def lane_of(self, root: str, name: str) -> tuple[str, int] | None:
        limits = {"queue-holder": 1, "queue-few": FEW}
        return (self.side, limits[self.program]) if self.program in limits else None


# -- F23


async def killed_holders(arena: Arena) -> None:
    """Kill whoever holds a key, again and again: nobody else comes in between, and the next comes soon."""
    chance = random.Random(arena.plan.seed)
    await arena.hire(arena.plan.workers)
    ends = time.monotonic() + arena.plan.seconds
    feeders = [asyncio.create_task(_keep_waiting(arena, key, ends)) for key in KEYS]
    moved_on: list[float] = []
    try:
        while time.monotonic() < ends:
            moved_on += await _killed_holder(arena, chance.choice(KEYS))
    finally:
        await asyncio.gather(*feeders)
    await arena.all_ended()
    await arena.nobody_else_is_listed(arena.crew.living)
    _note_kills(arena, sorted(moved_on))
    for miss in intruders(arena.ledger.read(), arena.crew.strikes):
        arena.miss("F23", miss)


async def _keep_waiting(arena: Arena, key: str, ends: float) -> None:
    """Have a few runs wait for a key as long as faults go on."""
    mine: list[str] = []
    while time.monotonic() < ends:
        done = {entry.run for entry in arena.ledger.read() if entry.name == f"{key}.{PARTS[-1]}"}
        if len(set(mine) - done) < WAITING_PER_KEY:
            mine.append(await _wait_in(arena, "queue-holder", key))
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def _wait_in(arena: Arena, program: str, key: str, **options: Any) -> str:
    number = len(arena.accepted) + 1
    promise = Waiting(program, number, side=key)
    payload = {"number": number, "side": key}
    return await arena.accept(
        program, payload, f"{program}-{key}-{number}", promise, concurrency_key=key, **options
    )


async def _killed_holder(arena: Arena, key: str) -> list[float]:
    """Kill who holds the key, replace it, and return how long nothing was begun under the key."""
    holder = await _holder(arena, key)
    arena.crew.kill(next(worker for worker in arena.crew.living if name_of(worker) == holder.worker))
    killed_at = time.time()
    [_] = await arena.hire()
    if not await _moves_on(arena, key, killed_at):
        arena.miss(
            "F23", f"nothing was begun under {key} for {MOVES_ON_SECONDS:g} s after a kill", holder.run
        )
        return []
    return [next(entry.at for entry in _begun(arena, key) if entry.at > killed_at) - killed_at]


async def _holder(arena: Arena, key: str) -> Entry:
    """Wait until a worker that lives executes a step under the key."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        entries = [entry for entry in arena.ledger.read() if entry.name.startswith(f"{key}.")]
        living = {name_of(worker) for worker in arena.crew.living}
        if entries and entries[-1].phase == "start" and entries[-1].worker in living:
            return entries[-1]
        await asyncio.sleep(LOOK_AGAIN_SECONDS / 5)
    raise TimeoutError(f"nobody holds {key}")


async def _moves_on(arena: Arena, key: str, since: float) -> bool:
    try:
        await arena.until(lambda: _begun(arena, key)[-1].at > since, MOVES_ON_SECONDS, "stands still")
    except TimeoutError:
        return False
    return True


def _begun(arena: Arena, key: str) -> list[Entry]:
    entries = arena.ledger.read()
    return [entry for entry in entries if entry.name.startswith(f"{key}.") and entry.phase == "start"]


def _note_kills(arena: Arena, moved_on: list[float]) -> None:
    if moved_on:
        middle, last = moved_on[len(moved_on) // 2], moved_on[int(len(moved_on) * 0.99)]
        arena.notes["moves on p50/p99"] = f"{middle:.1f}/{last:.1f} s"
    arena.notes["keys"] = str(len(KEYS))


def intruders(ledger: list[Entry], strikes: list[Strike]) -> Iterator[str]:
    """Say who held a key while another run held it, or executed a step that a living worker executed."""
    lanes: dict[str, list[Entry]] = defaultdict(list)
    for entry in sorted(ledger, key=lambda entry: entry.at):
        lanes[entry.name.partition(".")[0]].append(entry)
    for key, entries in lanes.items():
        for run, following in pairwise(_holders(entries)):
            if {entry.name for entry in run if entry.phase == "end"} != {f"{key}.{part}" for part in PARTS}:
                yield f"{following[0].run} came in between {run[0].run}, which held {key}"
        yield from _two_at_once(entries, strikes)


def _holders(entries: list[Entry]) -> list[list[Entry]]:
    """Return the entries of each run that held a key, one run after the other."""
    return [list(group) for _, group in itertools.groupby(entries, key=lambda entry: entry.run)]


def _two_at_once(entries: list[Entry], strikes: list[Strike]) -> Iterator[str]:
    going: dict[str, Entry] = {}
    for entry in entries:
        if entry.phase == "end":
            going.pop(entry.worker, None)
            continue
        struck = {strike.worker for strike in strikes if strike.at <= entry.at}
        for worker in set(going) - struck:
            yield f"{entry.worker} began {entry.name} while {worker} went on with {going[worker].name}"
        going = {entry.worker: entry}


# -- F22


async def fair_shares(arena: Arena) -> None:
    """Start runs of a second tenant, and urgent ones, behind a backlog of the first: they start at once."""
    await _backlog(arena)
    await arena.hire(arena.plan.workers)
    await arena.until(lambda: len(arena.ledger.read()) > WARM, BOOT_SECONDS, "the backlog stands still")
    arena.faults += 1  # the backlog
    modest = asyncio.create_task(_spread(arena, "queue-few", "carl", MODEST))
    late = await _spread(arena, "queue-tenant", "bert", LATE_COMERS)
    urgent = await _spread(arena, "queue-tenant", "anna", LATE_COMERS, priority=9)
    await modest
    for run in arena.accepted:
        await arena.client.wait(run, timeout_seconds=PATIENCE_SECONDS)
    arena.notes["still queued"] = f"{_waits(arena)} of {arena.plan.runs}"
    for kind, runs in (("tenant", late), ("urgent", urgent)):
        _note_starts(arena, kind, runs)
    if not _waits(arena):
        arena.miss("O8", "the backlog was gone before the late comers: it is too small")


async def _backlog(arena: Arena) -> None:
    """Start the runs of the first tenant; nobody promises that they end before the scenario does."""
    request = RunRequest(
        workflow_id="queue-tenant", payload={"number": 0, "side": "anna"}, concurrency_key="anna"
    )
    began = time.monotonic()
    for start in range(0, arena.plan.runs, BATCH):
        await arena.client.start_runs([request] * min(BATCH, arena.plan.runs - start))
    arena.notes["enqueued"] = f"{arena.plan.runs / (time.monotonic() - began):.0f}/s"


def _waits(arena: Arena) -> int:
    """Return how many runs of the backlog are queued; others of its program hardly matter."""
    return int(arena.read(QUEUED)[0][0])


async def _spread(arena: Arena, program: str, key: str, number: int, **options: Any) -> dict[str, float]:
    """Start runs; return when each was accepted."""
    accepted = {}
    for _ in range(number):
        run = await _wait_in(arena, program, key, **options)
        accepted[run] = time.time()
    return accepted


def _note_starts(arena: Arena, kind: str, runs: dict[str, float]) -> None:
    began = {entry.run: entry.at for entry in arena.ledger.read() if entry.phase == "start"}
    waited = sorted(began[run] - at for run, at in runs.items())
    arena.notes[f"{kind} starts p50/p95"] = f"{waited[len(waited) // 2]:.2f}/{waited[-1]:.2f} s"
    if waited[-1] > STARTS_SECONDS:
        arena.miss("F22", f"a run of {kind} began {waited[-1]:.1f} s after it was accepted")
