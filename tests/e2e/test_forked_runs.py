"""Runs that go on from a copy of another one's journal: from a step, with other values."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from backends import on_both

from polos import Polos, WorkflowContext, workflow

pytestmark = pytest.mark.timeout(120)
calls: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()


async def value(ctx: WorkflowContext, name: str, given: Any) -> Any:
    def call() -> Any:
        calls[name] += 1
        return given

    return await ctx.step.run(name, call, max_retries=0)


@workflow(id="fork-child")
async def child(ctx: WorkflowContext, number: Any) -> int:
    calls["child"] += 1
    return number * 10


@workflow(id="fork-line")
async def line(ctx: WorkflowContext, number: Any) -> list[Any]:
    a = await value(ctx, "a", number)
    b = await value(ctx, "b", a + 1)
    c = await ctx.step.invoke_and_wait("c", child, b)
    return [a, b, c, await value(ctx, "d", c + 1)]


@workflow(id="fork-beside")
async def beside(ctx: WorkflowContext) -> list[Any]:
    slow_may_end = asyncio.Event()

    async def slow() -> Any:
        async def call() -> str:
            calls["slow"] += 1
            await slow_may_end.wait()
            return "slow"

        return await ctx.step.run("slow", call, max_retries=0)

    async def quick() -> list[Any]:
        first = await value(ctx, "fast", "fast")
        second = await value(ctx, "then", "then")
        slow_may_end.set()
        return [first, second]

    return list(await asyncio.gather(quick(), slow()))


@workflow(id="fork-fails")
async def fails(ctx: WorkflowContext) -> Any:
    def call() -> str:
        raise ValueError("no")

    return await ctx.step.run("bad", call, max_retries=0)


@workflow(id="fork-nothing")
async def nothing(ctx: WorkflowContext) -> None:
    return None


async def result(polos: Polos, run_id: str) -> Any:
    record = await polos.wait(run_id, timeout_seconds=15)
    assert record["status"] == "completed", record["error"]
    return record["result"]


@pytest.fixture
async def source(polos: Polos) -> str:
    handle = await line.invoke(polos, 1)
    assert await result(polos, handle.id) == [1, 2, 20, 21]
    calls.clear()
    return handle.id


@on_both
async def test_a_fork_executes_again_from_the_step_on(polos: Polos, source: str) -> None:
    fork = await polos.fork(source, "c")
    assert await result(polos, fork.id) == [1, 2, 20, 21]
    assert calls == {"child": 1, "d": 1}


@on_both
async def test_a_patched_value_is_gone_on_with(polos: Polos, source: str) -> None:
    fork = await polos.fork(source, "c", patch={"b": 7})
    assert await result(polos, fork.id) == [1, 7, 70, 71]
    assert calls == {"child": 1, "d": 1}


async def test_without_a_step_only_the_end_is_executed_again(polos: Polos, source: str) -> None:
    fork = await polos.fork(source, patch={"c": 5})
    assert await result(polos, fork.id) == [1, 2, 5, 21]
    assert calls == {}


async def test_outcomes_of_children_are_copied_without_the_children(polos: Polos, source: str) -> None:
    fork = await polos.fork(source, "d")
    assert await result(polos, fork.id) == [1, 2, 20, 21]
    assert calls == {"d": 1}


async def test_another_input_is_for_the_code_that_runs_again(polos: Polos, source: str) -> None:
    fork = await polos.fork(source, "a", input=4)
    assert await result(polos, fork.id) == [4, 5, 50, 51]


async def test_the_source_and_its_ids_are_left_alone(polos: Polos, source: str) -> None:
    before = await polos.get_execution(source)
    fork = await polos.fork(source, "b", user_id="someone")
    await result(polos, fork.id)
    after = await polos.get_execution(fork.id)
    assert await polos.get_execution(source) == before
    assert (after["session_id"], after["user_id"]) == (before["session_id"], "someone")
    assert after["root_execution_id"] == fork.id
    assert after["parent_execution_id"] is None


async def test_a_failure_can_be_patched(polos: Polos) -> None:
    handle = await fails.invoke(polos)
    await polos.wait(handle.id, timeout_seconds=15)
    fork = await polos.fork(handle.id, patch={"bad": "good"})
    assert await result(polos, fork.id) == "good"


@on_both
async def test_what_had_no_outcome_when_the_step_was_begun_is_not_taken_over(polos: Polos) -> None:
    """The slow step was begun before, and ended after: its outcome is not part of that past."""
    handle = await beside.invoke(polos)
    await result(polos, handle.id)
    calls.clear()
    with pytest.raises(ValueError, match="'slow' had no outcome when step 'then' was begun"):
        await polos.fork(handle.id, "then", patch={"slow": 1})
    fork = await polos.fork(handle.id, "then", patch={"fast": "patched"})
    assert await result(polos, fork.id) == [["patched", "then"], "slow"]
    assert calls == {"slow": 1, "then": 1}


async def test_the_same_key_gives_the_same_fork(polos: Polos, source: str) -> None:
    first = await polos.fork(source, "c", idempotency_key=f"fork-{source}")
    assert (await polos.fork(source, "c", idempotency_key=f"fork-{source}")).id == first.id


async def test_the_stream_of_a_fork_has_its_own_beginning_and_end(polos: Polos, source: str) -> None:
    fork = await polos.fork(source, "c")
    async with asyncio.timeout(10):
        kinds = [event.event_type async for event in polos.follow(fork.id)]
    assert kinds[0] == "workflow_start", kinds
    assert kinds[-1] == "workflow_finish"


async def test_what_cannot_be_forked_is_refused_and_the_journal_named(polos: Polos, source: str) -> None:
    with pytest.raises(ValueError, match="has no step 'z'; its journal has: 'a', 'b', 'c', 'd'"):
        await polos.fork(source, "z")
    with pytest.raises(ValueError, match="'d' had no outcome when step 'c' was begun"):
        await polos.fork(source, "c", patch={"d": 1})
    with pytest.raises(ValueError, match="There is no run 'nothing'"):
        await polos.fork("nothing")
    empty = await nothing.invoke(polos)
    await polos.wait(empty.id, timeout_seconds=15)
    with pytest.raises(ValueError, match="has no recorded steps to go on from"):
        await polos.fork(empty.id)
    with pytest.raises(TypeError):
        await polos.fork(source, "c", patch={"b": object()})
