"""F15: each worker has a clock of its own, wrong by minutes or hours, and some are set while runs go on."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from arena import Arena
from clocks import Clocks
from crew import name_of
from daemons import postgres_daemon
from ledger import EPOCH
from orders import Beside, Order, Series
from places import Ground, Site
from promises import Wanted
from scenarios import FIRES_SECONDS, note_longest_standstill, only_the_struck_are_dead
from skew_names import HASTY, TICK, UNTIL
from week_program import CHAINS, MIXED, TURNS

from polos import serialization

SETTINGS = {"POLOS_IMPORTS": "week_program,skew_program", "POLOS_MAX_CRASHES": "50"}
WRONG_BY = (-600, 600, -3600, 3600, -300, 7200, 5, 0)  # seconds
BETWEEN_SECONDS = 3.0  # from one change to the next
KILL_EACH = 4  # changes
EARLY_SECONDS = 1.0
SERVER = "server"


@dataclass(frozen=True)
class Timely(Wanted):
    """A run of the programs that ask what time it is."""

    @property
    def order(self) -> Order:
        chains = {UNTIL: [["before", "woke"]], HASTY: CHAINS["week-clerk"]}[self.program]
        return Beside(Series(chain) for chain in chains)

    @property
    def turns(self) -> int:
        return TURNS["week-clerk"] if self.program == HASTY else 0

    def accepts(self, output: Any) -> bool:
        return bool(output == ("woke" if self.program == UNTIL else f"Done for {self.number}"))


@contextmanager
def clocks_apart(ground: Ground) -> Iterator[Site]:
    """A clock for each worker, and one for the database."""
    clocks = Clocks(ground.folder / "clocks")
    environment = {EPOCH: f"{time.time() - time.monotonic():.6f}"}
    with postgres_daemon(prefix=clocks.prefix_of(SERVER)) as server:
        yield Site(server.url, server, clocks=clocks, environment=environment)


async def clock_skew(arena: Arena) -> None:
    """Set clocks of workers wrong again and again: what is due comes when it is due, and nobody is judged."""
    plan, chance, clocks = arena.plan, random.Random(arena.plan.seed), arena.site.clocks
    assert clocks is not None
    for worker in await arena.hire(plan.workers):
        clocks.set(name_of(worker), chance.choice(WRONG_BY))
    due: dict[str, float] = {}
    ends = time.monotonic() + plan.seconds
    async with arena.load((*MIXED, "week-flaky", "week-sleeper")):
        while time.monotonic() < ends:
            due |= await _ask_for_the_time(arena, chance)
            await asyncio.sleep(BETWEEN_SECONDS)  # work goes on
            clocks.set(name_of(chance.choice(arena.crew.living)), chance.choice(WRONG_BY))
            if clocks.set_times % KILL_EACH == 0:
                arena.crew.kill(chance.choice(arena.crew.living))
                [hired] = await arena.hire()
                clocks.set(name_of(hired), chance.choice(WRONG_BY))
    await arena.all_ended()
    await arena.nobody_else_is_listed(arena.crew.living)
    arena.faults += clocks.set_times
    only_the_struck_are_dead(arena)
    note_longest_standstill(arena)
    _woke_in_time(arena, due)
    _ticked_once(arena)


async def _ask_for_the_time(arena: Arena, chance: random.Random) -> dict[str, float]:
    """Start a run with a deadline, and one that waits for a moment; return which, and for when."""
    number = len(arena.accepted)
    payload = {"input": f"Order {number}", "streaming": False}
    await arena.accept(HASTY, payload, f"{HASTY}-{number}", Timely(HASTY, number))
    at = time.time() + chance.uniform(2.0, 15.0)
    root = await arena.accept(UNTIL, {"at": at}, f"{UNTIL}-{number}", Timely(UNTIL, number))
    return {root: at}


def _woke_in_time(arena: Arena, due: dict[str, float]) -> None:
    """See that each went on when it was due, and that sleepers slept."""
    evidence = arena.evidence()
    late = []
    for root, at in [*due.items(), *_slept_until(arena)]:
        woke = [
            entry.at for entry in evidence.entries[root] if (entry.name, entry.phase) == ("woke", "start")
        ]
        if not woke:
            continue  # which the oracles tell
        late.append(woke[0] - at)
        if not -EARLY_SECONDS <= late[-1] <= FIRES_SECONDS:
            arena.miss("F15", f"went on {late[-1]:+.1f} s after it was due", root)
    arena.notes["went on"] = f"{min(late):+.1f} to {max(late):+.1f} s after it was due ({len(late)} times)"


def _slept_until(arena: Arena) -> Iterator[tuple[str, float]]:
    for root, wanted in arena.accepted.items():
        if wanted.program == "week-sleeper":
            ends = [e.at for e in arena.ledger.of(root) if (e.name, e.phase) == ("before", "end")]
            yield from ((root, at + max(arena.plan.seconds, 0.3)) for at in ends[-1:])


def _ticked_once(arena: Arena) -> None:
    """See that each minute started one run, when it had come."""
    runs = [run for run in arena.evidence().runs if run["name"] == TICK]
    ticks = Counter(str(serialization.loads(run["input"])["timestamp"]) for run in runs)
    arena.notes["ticks"] = str(len(ticks))
    for tick, times in ticks.items():
        if times > 1:
            arena.miss("F15", f"{tick} started {times} runs")
    for run in runs:
        past = run["created_at"] % 60.0
        if past > FIRES_SECONDS:
            arena.miss("F15", f"a run was started {past:.1f} s after its minute", run["id"])
