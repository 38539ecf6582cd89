"""A run that waits for a child never keeps the slot that the child needs, whatever it waits with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fleet import Fleet

from polos import WorkflowContext, workflow


@workflow(id="slots-child")
async def child(ctx: WorkflowContext) -> str:
    return "child"


async def behind_semaphore(ctx: WorkflowContext) -> Any:
    one_at_a_time = asyncio.Semaphore(1)

    async def invoke(key: str) -> Any:
        async with one_at_a_time:
            return await ctx.step.invoke_and_wait(key, child)

    return await asyncio.gather(invoke("a"), invoke("b"))


async def waited_for(ctx: WorkflowContext) -> Any:
    return await asyncio.wait_for(ctx.step.invoke_and_wait("a", child), 60)


async def shielded(ctx: WorkflowContext) -> Any:
    return await asyncio.shield(ctx.step.invoke_and_wait("a", child))


async def through_queue(ctx: WorkflowContext) -> Any:
    results: asyncio.Queue[Any] = asyncio.Queue()

    async def invoke() -> None:
        await results.put(await ctx.step.invoke_and_wait("a", child))

    task = asyncio.create_task(invoke())
    answer = await results.get()
    await task
    return answer


async def through_event(ctx: WorkflowContext) -> Any:
    done = asyncio.Event()
    task = asyncio.create_task(ctx.step.invoke_and_wait("a", child))
    task.add_done_callback(lambda _: done.set())
    await done.wait()
    return task.result()


SHAPES: dict[str, Callable[[WorkflowContext], Awaitable[Any]]] = {
    shape.__name__: shape for shape in (behind_semaphore, waited_for, shielded, through_queue, through_event)
}


@workflow(id="slots-parent")
async def parent(ctx: WorkflowContext, shape: str) -> Any:
    return await SHAPES[shape](ctx)


@pytest.mark.parametrize("shape", sorted(SHAPES))
async def test_a_child_gets_the_only_slot_while_its_parent_waits(fleet: Fleet, shape: str) -> None:
    fleet.hire(slots=1)
    run_id = fleet.create("slots-parent", f'"{shape}"')
    fleet.sweep()
    async with asyncio.timeout(8):
        assert (await fleet.until_ended(run_id))["status"] == "completed"
