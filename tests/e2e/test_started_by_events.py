"""Workflows that events and schedules start, in a program as users write it."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import Any

import pytest
from backends import on_both
from gates import until

from polos import (
    BatchEventPayload,
    EventPayload,
    Polos,
    SchedulePayload,
    WorkflowContext,
    events,
    schedules,
    workflow,
)
from polos.journal.triggers import READ_TRIGGERS, trigger_record

pytestmark = [pytest.mark.timeout(120), on_both]
_numbers = count(1)
_seen: dict[Any, list[Any]] = {}


def word() -> str:
    """Return what no other test has."""
    return f"word-{time.time_ns()}-{next(_numbers)}"


def see(what: Any, how: Any) -> None:
    _seen.setdefault(what, []).append(how)


@workflow(trigger_on_event="e2e/orders")
async def on_order(ctx: WorkflowContext, event: EventPayload) -> None:
    see(event.data["word"], event.sequence_id)
    await ctx.step.publish_event("packed", topic="e2e/packed", data=event.data)


@workflow(trigger_on_event="e2e/packed", batch_size=3, batch_timeout_seconds=20)
async def on_packed(ctx: WorkflowContext, batch: BatchEventPayload) -> None:
    for event in batch.events:
        see(("packed", event.data["word"]), len(batch.events))


@workflow(trigger_on_event="e2e/echo")
async def echo(ctx: WorkflowContext, event: EventPayload) -> None:
    """Start itself, for ever if nobody minds."""
    see(event.data["word"], event.sequence_id)
    await ctx.step.publish_event("again", topic="e2e/echo", data=event.data)


@workflow(trigger_on_event="e2e/prints", queue={"concurrency_limit": 1})
async def e2e_print(ctx: WorkflowContext, event: EventPayload) -> None:
    see(event.data["word"], "begins")
    await asyncio.sleep(0.05)
    see(event.data["word"], "ends")


@workflow(schedule=True)
async def e2e_reminder(ctx: WorkflowContext, tick: SchedulePayload) -> str:
    see(tick.key, tick.timestamp)
    return tick.key


async def test_events_start_workflows_whose_events_start_others(polos: Polos) -> None:
    """They are served once somebody publishes, though the program was started before they were defined."""
    mine = [word() for _ in range(3)]
    sent = [events.EventData(event_type="created", data={"word": each}) for each in mine]
    numbers = await events.batch_publish(polos, "e2e/orders", sent)
    await until(lambda: all(("packed", each) in _seen for each in mine), seconds=60)
    assert [_seen[each] for each in mine] == [[number] for number in numbers]
    assert [_seen["packed", each] for each in mine] == [[3], [3], [3]]


async def test_a_cycle_of_triggers_comes_to_an_end(polos: Polos) -> None:
    mine = word()
    await events.publish(polos, "e2e/echo", events.EventData(data={"word": mine}))

    async def newest() -> list[dict[str, Any]]:
        backend = await polos._transport.backend()
        rows = backend._read(READ_TRIGGERS, {"project": "default"})
        return [trigger for trigger in map(trigger_record, rows) if trigger["workflow"] == "echo"]

    limit = polos.settings.max_trigger_hops
    await until(lambda: len(_seen.get(mine, [])) == limit, seconds=60)
    async with asyncio.timeout(20):
        while [(trigger["cursor"], trigger["head"]) for trigger in await newest()] != [
            (limit + 1, limit + 1)
        ]:
            await asyncio.sleep(0.005)
    [trigger] = await newest()
    record = await polos.get_execution(trigger["last_run_id"])
    assert record["status"] == "failed"
    assert "cycle" in record["error"]
    assert len(_seen[mine]) == limit


async def test_the_limit_of_a_queue_holds_for_what_events_start(polos: Polos) -> None:
    mine = word()
    sent = [events.EventData(data={"word": mine}) for _ in range(4)]
    await events.batch_publish(polos, "e2e/prints", sent)
    await until(lambda: len(_seen.get(mine, [])) == 8, seconds=60)
    assert _seen[mine] == ["begins", "ends"] * 4


async def test_a_schedule_starts_runs_of_what_this_program_serves(polos: Polos) -> None:
    key = word()
    made = await schedules.create(client=polos, workflow="e2e_reminder", cron="0 3 * * *", key=key)
    handle = await schedules.trigger(polos, made)
    assert (await polos.wait(handle.id, timeout_seconds=20))["result"] == key
    assert len(_seen[key]) == 1
    await schedules.delete(polos, made)
