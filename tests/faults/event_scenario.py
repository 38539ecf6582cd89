"""F18: runs read a topic event by event while it is published, and workers are killed."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any

from arena import PATIENCE_SECONDS, Arena
from orders import Beside, Order
from promises import Wanted

from polos.events import EventData, batch_publish

SETTINGS = {"POLOS_IMPORTS": "week_program,event_program", "POLOS_MAX_CRASHES": "1000"}
TOPIC = "faults/read"
READERS = 4
BATCHES = (1, 1, 2, 5)  # events published at once


@dataclass(frozen=True)
class Reading(Wanted):
    """A run that reads so many events, in order."""

    @property
    def order(self) -> Order:
        return Beside()

    def accepts(self, output: Any) -> bool:
        return bool(output == list(range(self.number)))


async def event_races(arena: Arena) -> None:
    """Publish before, while and after readers wait, and kill workers: none is lost, none comes twice."""
    chance = random.Random(arena.plan.seed)
    await arena.hire(arena.plan.workers)
    number = arena.plan.runs // READERS
    await _publish(arena, 0, number // 10, chance)  # before anybody waits
    for place in range(READERS):
        payload = {"topic": TOPIC, "number": number}
        await arena.accept("event-reader", payload, f"reader-{place}", Reading("event-reader", number))
    publishing = asyncio.create_task(_publish(arena, number // 10, number, chance))
    ends = time.monotonic() + arena.plan.seconds
    while time.monotonic() < ends and arena.unended:
        await asyncio.sleep(chance.uniform(2.0, 6.0))
        arena.crew.kill(chance.choice(arena.crew.living))
        await arena.hire()
    await publishing
    await arena.all_ended(PATIENCE_SECONDS + number / 10)
    arena.notes["read"] = f"{READERS} times {number} events"


async def _publish(arena: Arena, first: int, end: int, chance: random.Random) -> None:
    while first < end:
        batch = range(first, min(first + chance.choice(BATCHES), end))
        events = [EventData(data={"number": number}, event_type="read") for number in batch]
        await batch_publish(arena.client, TOPIC, events)
        first = batch.stop
        await asyncio.sleep(chance.choice((0.0, 0.0, 0.01)))
