"""Waiting and publishing at once: no event is lost, none comes twice, however they meet.

POLOS_RACE_EVENTS=10000 makes it long.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from engine import fleet as engine_fleet
from engine.fleet import Fleet, until

from polos import WorkflowContext, workflow
from polos.journal.database import Database
from polos.journal.events import NewEvent, publish

EVENTS = int(os.environ.get("POLOS_RACE_EVENTS", "60"))
PUBLISHERS = 3
LISTENERS = 4


@workflow(id="race-reader")
async def reader(ctx: WorkflowContext, count: Any) -> list[int]:
    numbers: list[int] = []
    for place in range(count):
        seen = numbers[-1] if numbers else 0
        event = await ctx.step.wait_for_event(f"event {place}", "race", since=seen)
        numbers.append(event.sequence_id)
    return numbers


@workflow(id="race-sampler")
async def sampler(ctx: WorkflowContext, count: Any) -> list[int]:
    """Wait for what comes next, over and over."""
    events = [await ctx.step.wait_for_event(f"event {place}", "race", timeout=2) for place in range(count)]
    return [event.sequence_id for event in events]


def _publish(database: Database, count: int) -> None:
    connection = database.connect()
    for _ in range(count):
        connection.commit([publish("default", "race", [NewEvent(None, "{}")])])
    connection.close()


@pytest.mark.timeout(600)
async def test_readers_get_every_event_once_and_in_order(
    fleet: Fleet, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_fleet, "PATIENCE_SECONDS", 30 + EVENTS / 20)
    fleet.hire()
    total = EVENTS // PUBLISHERS * PUBLISHERS
    readers = [fleet.create("race-reader", str(total)) for _ in range(LISTENERS)]
    samplers = [fleet.create("race-sampler", "3") for _ in range(LISTENERS)]
    fleet.sweep()
    await asyncio.gather(
        *(asyncio.to_thread(_publish, database, total // PUBLISHERS) for _ in range(PUBLISHERS)),
        *(fleet.until_ended(run_id) for run_id in readers),
    )
    for run_id in readers:
        assert json.loads(fleet.record(run_id)["output"]) == list(range(1, total + 1))
    for run_id in samplers:
        run = await fleet.until_ended(run_id)
        if run["status"] == "completed":
            numbers = json.loads(run["output"])
            assert numbers == sorted(set(numbers))
        else:
            assert run["error"].startswith("Event wait expired"), "it came to the end of the events"
    await until(lambda: not any(worker.tasks for worker in fleet.workers))
