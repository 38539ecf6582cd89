"""Waits for events: the earliest that fits, exactly once, to everybody who waits."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from engine.fleet import Fleet, until
from sqlalchemy import func, select
from waits.publishing import met_waits, publish_to

from polos import StepExecutionError, WorkflowContext, workflow
from polos.event_data import topic_of
from polos.events import EventPayload
from polos.journal.event_waits import EVENT_WAITS, W
from polos.journal.statements import Statement
from polos.journal.steps import READ_STEPS

OPEN = Statement(select(func.count()).select_from(EVENT_WAITS).where(W.number.is_(None)))


def open_waits(fleet: Fleet) -> int:
    return int(fleet.read(OPEN)[0][0])


@workflow(id="events-listener")
async def listener(ctx: WorkflowContext, options: dict[str, Any]) -> list[Any]:
    """Wait for events one after another, each after the one before if `follow` is set."""
    heard: list[Any] = []
    since = options.get("since")
    if isinstance(since, str):
        since = datetime.fromisoformat(since)
    for number in range(options.get("count", 1)):
        try:
            event = await ctx.step.wait_for_event(
                f"event {number}",
                options["topic"],
                timeout=options.get("timeout"),
                event_type=options.get("type"),
                since=since,
            )
        except StepExecutionError as error:
            heard.append(str(error))
            continue
        assert isinstance(event, EventPayload)
        heard.append(event.data["says"])
        since = event.sequence_id if options.get("follow") else since
    return heard


async def listening(fleet: Fleet, topic: str, waits: int = 1, **options: Any) -> str:
    """Start a listener and return once it waits."""
    before = open_waits(fleet)
    run_id = fleet.create("events-listener", json.dumps({"topic": topic, **options}))
    fleet.sweep()
    await until(lambda: open_waits(fleet) >= before + waits)
    return run_id


async def heard_by(fleet: Fleet, run_id: str) -> list[Any]:
    run = await fleet.until_ended(run_id)
    assert run["status"] == "completed", run["error"]
    return list(json.loads(run["output"]))


async def test_of_several_events_the_earliest_is_delivered(fleet: Fleet) -> None:
    run_id = await listening(fleet, "orders")
    publish_to(fleet, "orders", "first", "second")
    publish_to(fleet, "orders", "third")
    assert await heard_by(fleet, run_id) == ["first"]
    assert (open_waits(fleet), met_waits(fleet)) == (0, 0)


async def test_what_was_published_before_does_not_count(fleet: Fleet) -> None:
    publish_to(fleet, "orders", "old")
    run_id = await listening(fleet, "orders")
    publish_to(fleet, "orders", "new")
    assert await heard_by(fleet, run_id) == ["new"]


async def test_events_of_another_type_or_topic_do_not_count(fleet: Fleet) -> None:
    run_id = await listening(fleet, "orders", type="paid")
    publish_to(fleet, "invoices", "elsewhere", kind="paid")
    publish_to(fleet, "orders", "no type")
    publish_to(fleet, "orders", "other type", kind="created")
    assert (open_waits(fleet), met_waits(fleet)) == (1, 0)
    publish_to(fleet, "orders", "this", kind="paid")
    assert await heard_by(fleet, run_id) == ["this"]


async def test_everybody_who_waits_gets_the_event(fleet: Fleet) -> None:
    runs = [await listening(fleet, "news") for _ in range(4)]
    publish_to(fleet, "news", "extra")
    assert [await heard_by(fleet, run_id) for run_id in runs] == [["extra"]] * 4


async def test_since_a_sequence_id_stored_events_count(fleet: Fleet) -> None:
    """Reading on from each event, none is passed over and none comes twice."""
    first = publish_to(fleet, "orders", 0)
    publish_to(fleet, "orders", 1, 2)
    run_id = fleet.create(
        "events-listener", json.dumps({"topic": "orders", "count": 4, "since": first, "follow": True})
    )
    fleet.sweep()
    await until(lambda: open_waits(fleet) == 1)
    publish_to(fleet, "orders", 3)
    publish_to(fleet, "orders", 4)
    assert await heard_by(fleet, run_id) == [1, 2, 3, 4]


async def test_since_a_moment_stored_events_count(fleet: Fleet) -> None:
    publish_to(fleet, "orders", "before")
    old = time.time()
    await until(lambda: time.time() > old + 0.005)
    moment = datetime.now(UTC)
    publish_to(fleet, "orders", "after")
    options = {"topic": "orders", "since": moment.isoformat()}
    assert await heard_by(fleet, fleet.create("events-listener", json.dumps(options))) == ["after"]


async def test_a_wait_expires(fleet: Fleet) -> None:
    """In memory and parked; what comes later is no event for it."""
    for timeout in (0.04, 0.3):
        run_id = fleet.create("events-listener", json.dumps({"topic": "silent", "timeout": timeout}))
        [said] = await heard_by(fleet, run_id)
        assert said.startswith("Event wait expired at 2")
    publish_to(fleet, "silent", "too late")
    assert (open_waits(fleet), met_waits(fleet)) == (0, 0)


async def test_a_run_hears_what_is_published_in_another_tree(fleet: Fleet) -> None:
    other = await listening(fleet, "hold")
    topic = topic_of("events-listener", other)
    run_id = await listening(fleet, topic)
    publish_to(fleet, topic, "told", root=other)
    assert await heard_by(fleet, run_id) == ["told"]


@workflow(id="events-speaker")
async def speaker(ctx: WorkflowContext, topic: Any) -> None:
    for number in range(3):
        await ctx.step.publish_event(f"say {number}", topic, {"says": number})


async def test_events_published_by_runs_are_handed_over_at_once(fleet: Fleet) -> None:
    """No sweeper is needed."""
    runs = [await listening(fleet, "chat") for _ in range(3)]
    fleet.workers[0].serve(fleet.create("events-speaker", '"chat"'))
    await until(lambda: all(fleet.record(run_id)["status"] == "completed" for run_id in runs))
    assert [json.loads(fleet.record(run_id)["output"]) for run_id in runs] == [[0]] * 3


@workflow(id="events-race")
async def race(ctx: WorkflowContext, topic: Any) -> list[str]:
    """Wait for an event and a time at once, then once more."""
    won = []
    for number in range(2):
        waits = [
            asyncio.create_task(ctx.step.wait_for_event(f"event {number}", topic), name="event"),
            asyncio.create_task(ctx.step.wait_for(f"time {number}", seconds=0.3), name="time"),
        ]
        done, others = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        won.append(min(task.get_name() for task in done))
        for task in others:
            task.cancel()
    return won


async def test_a_race_of_an_event_and_a_time_is_replayed_alike(fleet: Fleet) -> None:
    run_id = fleet.create("events-race", '"race"')
    fleet.sweep()
    await until(lambda: open_waits(fleet) == 1)
    publish_to(fleet, "race", "first")
    fleet.sweep()
    await until(lambda: "time 1" in [row[0] for row in fleet.read(READ_STEPS, run=run_id)])
    await fleet.bury(fleet.workers[0])
    fleet.hire()
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == ["event", "time"]
    assert run["attempt"] == 2
    await until(lambda: open_waits(fleet) == 0)  # the wait that lost goes with its run


@workflow(id="events-wrong")
async def wrong(ctx: WorkflowContext, options: dict[str, Any]) -> None:
    await ctx.step.wait_for_event("event", **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"topic": ""}, "A topic is a text"),
        ({"topic": "t", "timeout": 0}, "give seconds above 0"),
        ({"topic": "t", "timeout": True}, "give a number"),
        ({"topic": "t", "event_type": 3}, "give a string"),
        ({"topic": "t", "since": "yesterday"}, "give a sequence id or a datetime"),
        ({"topic": "t", "since": -1}, "sequence ids are 0 or more"),
    ],
)
async def test_bad_arguments_are_named(fleet: Fleet, options: dict[str, Any], said: str) -> None:
    fleet.workers[0].runtime.settings = fleet.settings.with_values(max_run_retries=0)
    run = await fleet.until_ended(fleet.create("events-wrong", json.dumps(options)))
    assert run["status"] == "failed"
    assert said in run["error"]
