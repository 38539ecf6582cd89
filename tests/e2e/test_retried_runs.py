"""Runs that failed or were cancelled go on from their journal when a person says so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from backends import on_both
from gates import Gate, until

from polos import Polos, StepExecutionError, WorkflowContext, workflow

pytestmark = pytest.mark.timeout(120)
calls: Counter[str] = Counter()
broken: set[str] = set()
gates: dict[str, Gate] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()
    broken.clear()


def part(name: str) -> Callable[[], str]:
    """Return a step function that counts its calls and fails while its name is among the broken."""

    def call() -> str:
        calls[name] += 1
        if name in broken:
            raise ValueError(f"{name} is broken")
        return name

    return call


async def step(ctx: WorkflowContext, name: str) -> Any:
    return await ctx.step.run(name, part(name), max_retries=0)


@workflow(id="retry-in-line")
async def in_line(ctx: WorkflowContext) -> list[str]:
    return [await step(ctx, name) for name in ("a", "b", "c")]


@workflow(id="retry-together")
async def together(ctx: WorkflowContext) -> list[str]:
    found = await asyncio.gather(*(step(ctx, name) for name in ("a", "b", "c")))
    return [*found, await step(ctx, "d")]


@workflow(id="retry-handled")
async def handled(ctx: WorkflowContext) -> list[str]:
    try:
        first = await step(ctx, "a")
    except StepExecutionError:
        first = await step(ctx, "instead")
    return [first, await step(ctx, "b")]


@workflow(id="retry-leaf")
async def leaf(ctx: WorkflowContext) -> str:
    await step(ctx, "leaf-1")
    return str(await step(ctx, "leaf-2"))


@workflow(id="retry-middle")
async def middle(ctx: WorkflowContext) -> str:
    return str(await ctx.step.invoke_and_wait("leaf", leaf))


@workflow(id="retry-top")
async def top(ctx: WorkflowContext) -> list[str]:
    await step(ctx, "before")
    return [str(await ctx.step.invoke_and_wait("middle", middle)), await step(ctx, "after")]


@workflow(id="retry-slow-child")
async def slow_child(ctx: WorkflowContext) -> str:
    await step(ctx, "child-1")
    await gates["slow"].passed()
    return "child"


@workflow(id="retry-cut-off")
async def cut_off(ctx: WorkflowContext) -> list[str]:
    await step(ctx, "a")
    return [str(await ctx.step.invoke_and_wait("child", slow_child)), await step(ctx, "b")]


async def ended(polos: Polos, run_id: str) -> dict[str, Any]:
    return await polos.wait(run_id, timeout_seconds=15)


@on_both
async def test_only_what_failed_is_executed_again(polos: Polos) -> None:
    broken.add("b")
    handle = await in_line.invoke(polos)
    assert (await ended(polos, handle.id))["status"] == "failed"
    broken.clear()
    await polos.retry(handle.id)
    record = await ended(polos, handle.id)
    assert (record["status"], record["result"], record["error"]) == ("completed", ["a", "b", "c"], None)
    assert calls == {"a": 1, "b": 2, "c": 1}


async def test_a_retry_may_fail_again_and_be_repeated(polos: Polos) -> None:
    broken.add("b")
    handle = await in_line.invoke(polos)
    await ended(polos, handle.id)
    await polos.retry(handle.id)
    record = await ended(polos, handle.id)
    assert (record["status"], calls["b"]) == ("failed", 2)
    broken.clear()
    await polos.retry(handle.id)
    assert (await ended(polos, handle.id))["result"] == ["a", "b", "c"]
    assert calls == {"a": 1, "b": 3, "c": 1}


@pytest.mark.parametrize("names", [{"a"}, {"c"}, {"a", "c"}, {"a", "b", "c"}])
async def test_of_steps_that_ran_together_those_that_failed_run_again(polos: Polos, names: set[str]) -> None:
    broken.update(names)
    handle = await together.invoke(polos)
    await ended(polos, handle.id)
    before = dict(calls)
    broken.clear()
    await polos.retry(handle.id)
    record = await ended(polos, handle.id)
    assert record["result"] == ["a", "b", "c", "d"]
    assert all(calls[name] == before.get(name, 0) + 1 for name in names)


async def test_a_failure_that_the_code_handled_stays(polos: Polos) -> None:
    broken.update({"a", "b"})
    handle = await handled.invoke(polos)
    assert (await ended(polos, handle.id))["status"] == "failed"
    broken.clear()
    await polos.retry(handle.id)
    assert (await ended(polos, handle.id))["result"] == ["instead", "b"]
    assert calls == {"a": 1, "instead": 1, "b": 2}


@on_both
async def test_failed_children_go_on_in_turn(polos: Polos) -> None:
    broken.add("leaf-2")
    handle = await top.invoke(polos)
    assert (await ended(polos, handle.id))["status"] == "failed"
    broken.clear()
    await polos.retry(handle.id)
    assert (await ended(polos, handle.id))["result"] == ["leaf-2", "after"]
    assert calls == {"before": 1, "leaf-1": 1, "leaf-2": 2, "after": 1}


@on_both
async def test_a_cancelled_run_goes_on_where_it_was_cut_off(polos: Polos) -> None:
    gates["slow"] = Gate()
    handle = await cut_off.invoke(polos)
    await gates["slow"].reached()
    await polos.cancel_execution(handle.id)
    assert (await ended(polos, handle.id))["status"] == "cancelled"
    gates["slow"] = Gate()
    gates["slow"].open()
    await polos.retry(handle.id)
    record = await ended(polos, handle.id)
    assert (record["result"], record["cancelled_by"]) == (["child", "b"], None)
    assert calls == {"a": 1, "child-1": 1, "b": 1}


@on_both
async def test_readers_of_the_stream_see_the_retry_and_the_new_end(polos: Polos) -> None:
    broken.add("b")
    handle = await in_line.invoke(polos)
    first = [event async for event in polos.follow(handle.id)]
    broken.clear()
    await polos.retry(handle.id)
    later = [event async for event in polos.follow(handle.id, after=first[-1].id)]
    assert (later[-1].event_type, later[-1].data["result"]) == ("workflow_finish", ["a", "b", "c"])
    async with asyncio.timeout(10):
        whole = [event async for event in polos.follow(handle.id)]
    kinds = [event.event_type for event in whole]
    assert kinds.count("workflow_finish") == 1
    assert kinds[-1] == "workflow_finish"
    assert "error" not in whole[-1].data


async def test_only_roots_that_have_ended_badly_are_retried(polos: Polos) -> None:
    broken.add("leaf-1")
    handle = await top.invoke(polos)
    await ended(polos, handle.id)
    found = [event async for event in polos.follow(handle.id)]
    child = next(
        event.data["_metadata"]["execution_id"]
        for event in found
        if event.data["_metadata"]["workflow_id"] == "retry-leaf"
    )
    with pytest.raises(ValueError, match=f"retry the root of the tree, {handle.id}"):
        await polos.retry(child)
    broken.clear()
    await polos.retry(handle.id)
    await ended(polos, handle.id)
    with pytest.raises(ValueError, match="is completed; only failed and cancelled runs are retried"):
        await polos.retry(handle.id)
    with pytest.raises(ValueError, match="There is no run 'nothing'"):
        await polos.retry("nothing")


async def test_a_run_out_of_time_has_all_of_it_again(polos: Polos) -> None:
    gates["time"] = Gate()

    @workflow(id="retry-out-of-time")
    async def out_of_time(ctx: WorkflowContext) -> str:
        await gates["time"].passed()
        return "in time"

    handle = await out_of_time.invoke(polos, run_timeout_seconds=1)
    assert (await ended(polos, handle.id))["cancelled_by"] == "timeout"
    gates["time"].open()
    await polos.retry(handle.id)
    assert (await ended(polos, handle.id))["result"] == "in time"
    await until(lambda: True)
