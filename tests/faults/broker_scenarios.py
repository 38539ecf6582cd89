"""F7, F8 and F33: the broker dies, stands still, comes back empty, gives up what it delivered too often."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable

from arena import PATIENCE_SECONDS, Arena
from broker_kinds import RabbitBroker
from processes import Worker
from scenarios import only_the_struck_are_dead
from week_program import MIXED

RESUMES_SECONDS = 10.0  # the promise, of a machine that is not loaded
ON_A_LOADED_MACHINE = 6.0  # times as long
REST_SECONDS = 3.0  # between outages
DELIVERY_LIMIT = 0  # whoever dies with a message in hand was its last chance
GIVEN_UP = "given-up"  # where a queue's messages go that were delivered too often


async def broker_away(arena: Arena) -> None:
    """Kill the broker, for as long as the plan says in all, and start it again, empty, at the same place."""
    await _outages(arena, arena.broker.kill, arena.broker.start)


async def broker_frozen(arena: Arena) -> None:
    """Stop the broker's processes, connections open, and let them go on."""
    await _outages(arena, arena.broker.freeze, arena.broker.thaw)


async def _outages(arena: Arena, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Have one short and one long outage under load; workers resume by themselves, and nobody is judged."""
    await arena.hire(arena.plan.workers)
    took: list[float] = []
    async with arena.load(MIXED):
        for seconds in (arena.plan.seconds / 6, arena.plan.seconds):
            await asyncio.sleep(REST_SECONDS)  # work is under way
            await asyncio.to_thread(begin)
            arena.faults += 1
            await asyncio.sleep(seconds)  # an outage has a length
            await asyncio.to_thread(end)
            took.append(await _all_work_again(arena))
    await arena.all_ended()
    await arena.nobody_else_is_listed(arena.crew.living)
    only_the_struck_are_dead(arena)
    arena.notes["all work again after"] = f"{statistics.median(took):.1f} s, at most {max(took):.1f} s"
    if max(took) > RESUMES_SECONDS * ON_A_LOADED_MACHINE:
        arena.miss("resumed", f"a worker began nothing for {max(took):.1f} s after the broker was back")


async def _all_work_again(arena: Arena) -> float:
    """Return how long it takes until each worker has begun something new."""
    back_at = time.time()
    for worker in arena.crew.living:
        await arena.until(
            lambda: _received_since(worker, back_at),  # noqa: B023
            PATIENCE_SECONDS,
            f"{worker.name} receives nothing after the broker is back",
        )
    return time.time() - back_at


def _received_since(worker: Worker, moment: float) -> bool:
    """Whether a worker has taken a message since: what it had taken before does not show that it can."""
    text = worker.log.read_text(errors="replace")
    return any(_logged_at(line) > moment for line in text.splitlines()[-200:] if line.endswith(" received"))


def _logged_at(line: str) -> float:
    stamp, _, milliseconds = line[1:24].partition(",")
    return time.mktime(time.strptime(stamp, "%Y-%m-%d %H:%M:%S")) + int(milliseconds) / 1000


# -- RabbitMQ


async def delivery_limit(arena: Arena) -> None:
    """Kill workers with messages in hand until queues give these up: what is not delivered is rung again."""
    broker = arena.broker
    assert isinstance(broker, RabbitBroker)
    await asyncio.to_thread(broker.limit_deliveries, DELIVERY_LIMIT, GIVEN_UP)
    plan, chance = arena.plan, random.Random(arena.plan.seed)
    await arena.hire(plan.workers)
    ends = time.monotonic() + plan.seconds
    async with arena.load(MIXED):
        while time.monotonic() < ends:
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            arena.crew.kill(chance.choice(arena.crew.living))
            await arena.hire()
    await arena.all_ended()
    await arena.nobody_else_is_listed(arena.crew.living)
    given_up = await asyncio.to_thread(broker.count, GIVEN_UP)
    arena.notes["messages given up"] = str(given_up)
    if not given_up:
        arena.miss("O8", "no message was given up: the scenario is too small")
