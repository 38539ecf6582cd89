"""Whatever waits for a time goes on when the clock of its runtime is moved, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from polos import (
    Agent,
    BatchEventPayload,
    PolosClient,
    SchedulePayload,
    WorkflowContext,
    queue,
    tool,
    workflow,
)
from polos.events import EventData
from polos.testing import MovableClock, ScriptedModel, answer, next_question, runtime, tool_call

pytestmark = pytest.mark.timeout(120)
START = datetime(2030, 1, 1, 7, 30, tzinfo=UTC)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock(START)


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel([])


@pytest_asyncio.fixture
async def client(clock: MovableClock, model: ScriptedModel) -> AsyncIterator[PolosClient]:
    async with runtime(model, clock=clock) as client:
        yield client


async def status(client: PolosClient, run_id: str) -> str:
    return str((await client.get_execution(run_id))["status"])


@workflow(id="moved-until")
async def until(ctx: WorkflowContext) -> int:
    await ctx.step.wait_until("noon", START + timedelta(hours=4, minutes=30))
    return await ctx.step.now("now")


async def test_a_moment_is_reached_and_not_before(client: PolosClient, clock: MovableClock) -> None:
    run = await until.invoke(client)
    await clock.advance_to(START + timedelta(hours=4, minutes=29))
    assert await status(client, run.id) == "waiting"

    await clock.advance(minutes=2)
    record = await client.get_execution(run.id)
    assert datetime.fromtimestamp(record["result"] / 1000, UTC).strftime("%H:%M") == "12:00"
    assert record["completed_at"].startswith("2030-01-01T12:00")


async def test_a_clock_may_begin_long_before_this_machine_did() -> None:
    clock = MovableClock(datetime(1990, 1, 1, tzinfo=UTC))
    assert clock.monotonic() > 0
    async with runtime(clock=clock) as client:
        run = await soon.invoke(client, delay_seconds=60)
        await clock.advance(minutes=5)
        assert await status(client, run.id) == "completed"


@workflow(id="moved-soon")
async def soon(ctx: WorkflowContext) -> int:
    return await ctx.step.now("now")


@workflow(id="moved-ask")
async def ask(ctx: WorkflowContext) -> object:
    return await ctx.step.suspend("approve", data={"what": "it"}, timeout=3600)


async def test_a_question_that_nobody_answers_expires(client: PolosClient, clock: MovableClock) -> None:
    run = await ask.invoke(client)
    await next_question(client, run)
    await clock.advance(minutes=59)
    assert (await client.get_execution(run.id))["completed_at"] is None

    await clock.advance(minutes=2)
    record = await client.get_execution(run.id)
    assert (record["status"], "timed out after 3600 seconds" in record["error"]) == ("failed", True)


@workflow(id="moved-event")
async def wait_for_event(ctx: WorkflowContext) -> object:
    event = await ctx.step.wait_for_event("order", "moved/orders", timeout=86400.0)
    return event.data


async def test_an_event_comes_before_the_wait_expires(client: PolosClient, clock: MovableClock) -> None:
    run = await wait_for_event.invoke(client)
    await clock.advance(hours=23)
    await client.publish_events("moved/orders", [EventData(data={"n": 1})])

    assert (await client.wait(run.id, timeout_seconds=20))["result"] == {"n": 1}


@workflow(id="moved-timeout")
async def stands_still(ctx: WorkflowContext) -> None:
    await asyncio.Event().wait()


async def test_a_run_that_takes_too_long_is_ended(client: PolosClient, clock: MovableClock) -> None:
    run = await stands_still.invoke(client, run_timeout_seconds=600)
    await clock.advance(minutes=9)
    assert await status(client, run.id) == "running"

    await clock.advance(minutes=2)
    record = await client.get_execution(run.id)
    assert (record["status"], "timed out after 600 seconds" in record["error"]) == ("failed", True)


@workflow(id="moved-poll")
async def polls(ctx: WorkflowContext) -> str:
    while not tries:
        await asyncio.sleep(0.001)
    return "seen"


async def test_code_that_looks_again_and_again_does_not_hold_time_up(
    client: PolosClient, clock: MovableClock
) -> None:
    tries.clear()
    run = await polls.invoke(client)
    await clock.advance(hours=1)
    tries.append(1.0)

    record = await client.wait(run.id, timeout_seconds=20)
    assert record["completed_at"] >= "2030-01-01T08:30"


tries: list[float] = []


@workflow(id="moved-step-retries")
async def retries_a_step(ctx: WorkflowContext) -> str:
    async def flaky() -> str:
        tries.append(await asyncio.sleep(0, len(tries)))
        if len(tries) < 4:
            raise ConnectionError("not yet")
        return "done"

    return await ctx.step.run("flaky", flaky, max_retries=5, base_delay=20.0, max_delay=600.0)


async def test_pauses_between_tries_pass(client: PolosClient, clock: MovableClock) -> None:
    """Short ones in memory, long ones parked."""
    tries.clear()
    run = await retries_a_step.invoke(client)
    await clock.advance(hours=1)

    assert (await client.get_execution(run.id))["result"] == "done"


@workflow(id="moved-run-retries")
async def retries_the_run(ctx: WorkflowContext) -> str:
    tries.append(0.0)
    if len(tries) < 3:
        raise ConnectionError("not yet")
    return "done"


async def test_a_failed_run_is_tried_again_in_time(client: PolosClient, clock: MovableClock) -> None:
    tries.clear()
    run = await retries_the_run.invoke(client)
    await clock.advance(hours=1)

    assert (await client.get_execution(run.id))["result"] == "done"


@workflow(id="moved-delayed")
async def delayed(ctx: WorkflowContext) -> int:
    return await ctx.step.now("now")


async def test_a_delayed_run_starts_at_its_time(client: PolosClient, clock: MovableClock) -> None:
    run = await client.invoke("moved-delayed", delay_seconds=7200)
    await clock.advance(hours=1, minutes=59)
    assert await status(client, run.id) == "queued"

    await clock.advance(minutes=2)
    began = (await client.get_execution(run.id))["result"] / 1000 - START.timestamp()
    assert 7200 <= began < 7260


paced = queue("moved-paced", rate_limit=1, rate_seconds=60)


@workflow(id="moved-rate", queue=paced)
async def at_a_rate(ctx: WorkflowContext) -> int:
    return await ctx.step.now("now")


async def test_a_rate_is_kept_by_the_clock(client: PolosClient, clock: MovableClock) -> None:
    runs = [await at_a_rate.invoke(client) for _ in range(3)]
    await clock.advance(minutes=5)
    moments = sorted([(await client.get_execution(run.id))["result"] / 1000 for run in runs])

    assert [round((moment - moments[0]) / 60) for moment in moments] == [0, 1, 2]


ticks: list[str] = []


@workflow(id="moved-daily", schedule={"cron": "0 8 * * *", "timezone": "Europe/Berlin"})
async def daily(ctx: WorkflowContext, tick: SchedulePayload) -> None:
    ticks.append(tick.timestamp.strftime("%d %H:%M"))


async def test_each_tick_of_a_schedule_starts_a_run(client: PolosClient, clock: MovableClock) -> None:
    """07:30 in UTC is half past eight in Berlin: today's tick is past."""
    ticks.clear()
    await clock.advance(days=3)

    assert ticks == ["02 07:00", "03 07:00", "04 07:00"]


batches: list[int] = []


@workflow(id="moved-batch", trigger_on_event="moved/views", batch_size=10, batch_timeout_seconds=300)
async def count_views(ctx: WorkflowContext, batch: BatchEventPayload) -> None:
    batches.append(len(batch.events))


async def test_a_batch_that_does_not_fill_starts_in_time(client: PolosClient, clock: MovableClock) -> None:
    batches.clear()
    await client.publish_events("moved/views", [EventData(data={}), EventData(data={})])
    await clock.advance(minutes=4)
    assert batches == []

    await clock.advance(minutes=2)
    assert batches == [2]


@tool(id="moved-nap", description="Sleep")
async def nap(ctx: WorkflowContext) -> str:
    await ctx.step.wait_for("nap", hours=8)
    return "rested"


napping_agent = Agent(id="moved-agent", provider="openai", model="gpt-4o", tools=[nap])


async def test_an_agent_waits_for_its_tool_and_a_slow_model(
    client: PolosClient, clock: MovableClock, model: ScriptedModel
) -> None:
    model.add(tool_call("moved-nap"), answer("Good morning.", pause_seconds=300))
    run = await client.invoke("moved-agent", {"input": "Sleep."})
    await clock.advance(hours=8, minutes=1)
    assert (len(model.calls), await status(client, run.id)) == (2, "running")

    await clock.advance(minutes=5)
    assert (await client.get_execution(run.id))["result"]["result"] == "Good morning."


async def test_a_stream_goes_on_after_the_clock_was_moved(
    client: PolosClient, clock: MovableClock, model: ScriptedModel
) -> None:
    model.add(tool_call("moved-nap"), answer(chunks=["Good ", "morning."], pause_seconds=10))
    stream = await napping_agent.stream(client, "Sleep.")

    async def text() -> list[str]:
        return [piece async for piece in stream.text_chunks]

    reading = asyncio.create_task(text())
    await clock.advance(days=1)
    assert await asyncio.wait_for(reading, 20) == ["Good ", "morning."]
    events = [event async for event in client.follow(stream.id)]
    assert events[-1].created_at is not None
    assert events[-1].created_at.startswith("2030-01-01T15:30")


async def test_time_that_passes_nothing_by_is_time_all_the_same(clock: MovableClock) -> None:
    """Before a runtime lives by it, too."""
    await clock.advance(weeks=1)
    assert (clock.now() - START).days == 7
    with pytest.raises(ValueError, match="does not go back"):
        await clock.advance(hours=-1)
    with pytest.raises(ValueError, match="does not go back"):
        await clock.advance_to(START)


async def test_what_is_old_is_removed(client: PolosClient, clock: MovableClock) -> None:
    run = await delayed.invoke(client)
    await client.wait(run.id, timeout_seconds=20)
    await clock.advance(days=8)

    with pytest.raises(ValueError, match="There is no run"):
        await client.get_execution(run.id)


def test_a_sync_test_moves_the_clock_too() -> None:
    clock = MovableClock(START)
    with runtime(clock=clock) as client:
        run = client.sync.invoke("moved-until")
        clock.sync.advance(hours=5)
        assert client.sync.get_execution(run.id)["status"] == "completed"


async def test_a_sync_advance_on_the_loop_of_the_runtime_is_refused(
    client: PolosClient, clock: MovableClock
) -> None:
    with pytest.raises(RuntimeError, match=r"await clock\.advance"):
        clock.sync.advance(hours=1)
