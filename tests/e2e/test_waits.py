"""Waits of runs on a real worker: they end on time, whoever ends them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from backends import on_both

from polos import BatchWorkflowInput, Polos, WorkflowContext, events, workflow
from polos.events import EventData


@workflow(id="e2e-nap")
async def nap(ctx: WorkflowContext, seconds: Any) -> float:
    began = await ctx.step.now("began")
    await ctx.step.wait_for("nap", seconds=seconds)
    return time.time() - began / 1000


@on_both
async def test_a_short_wait_ends_on_time(polos: Polos) -> None:
    took = await nap.run(polos, 0.3)
    assert 0.29 <= took < 2


@workflow(id="e2e-listen")
async def listen(ctx: WorkflowContext, topic: Any) -> Any:
    event = await ctx.step.wait_for_event("event", topic, timeout=30, since=0)
    return event.data


@on_both
async def test_what_a_client_publishes_reaches_every_run_that_waits(polos: Polos) -> None:
    handles = [await listen.invoke(polos, "e2e/orders") for _ in range(3)]

    async def waiting() -> int:
        return sum([(await handle.get(polos))["status"] == "running" for handle in handles])

    async with asyncio.timeout(15):
        while await waiting() < 3:
            await asyncio.sleep(0.01)
    await events.publish(polos, "e2e/orders", EventData(data={"order": 7}))
    for handle in handles:
        record = await polos.wait(handle.id, timeout_seconds=15)
        assert record["result"] == {"order": 7}


@workflow(id="e2e-tell")
async def tell(ctx: WorkflowContext, topic: Any) -> None:
    await ctx.step.publish_event("tell", topic, {"told": True})


@workflow(id="e2e-both")
async def both(ctx: WorkflowContext, topic: Any) -> Any:
    """Wait for what a child tells."""
    heard = asyncio.create_task(ctx.step.wait_for_event("heard", topic))
    await ctx.step.wait_for("until it listens", seconds=0.05)
    await ctx.step.batch_invoke("tellers", [BatchWorkflowInput(id="e2e-tell", payload=topic)] * 3)
    return (await heard).data


async def test_runs_tell_one_another(polos: Polos) -> None:
    assert await both.run(polos, "e2e/both") == {"told": True}


@workflow(id="e2e-early")
async def early(ctx: WorkflowContext) -> Any:
    await ctx.step.wait_for("pause", seconds=0.3)
    return (await ctx.step.suspend("go", {"ask": "go on?"}))["data"]


async def test_an_answer_that_comes_too_early_is_kept(polos: Polos) -> None:
    handle = await early.invoke(polos)
    await polos.resume("e2e-early", handle.id, "go", {"go": True})
    record = await polos.wait(handle.id, timeout_seconds=15)
    assert record["result"] == {"go": True}
