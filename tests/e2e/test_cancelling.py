"""Cancelled and timed-out runs: what ends, how soon, and what each one's parent and client see."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from backends import on_both
from gates import Gate, until

from polos import Polos, StepExecutionError, WorkflowContext, WorkflowTimeoutError, workflow
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(120)


class Body:
    """Code that a test may see being stopped."""

    def __init__(self) -> None:
        self.is_running = False
        self.was_stopped = False

    async def __call__(self) -> None:
        self.is_running = True
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.was_stopped = True
            raise


@on_both
async def test_cancelling_stops_the_code_and_ends_the_run(polos: Polos) -> None:
    body = Body()

    @workflow(id="e2e-cancel-body")
    async def runs(ctx: WorkflowContext) -> None:
        await body()

    handle = await runs.invoke(polos)
    await until(lambda: body.is_running)
    assert await handle.cancel(polos) is True

    await until(lambda: body.was_stopped, seconds=3)
    record = await polos.wait(handle.id, timeout_seconds=3)
    assert (record["status"], record["cancelled_by"]) == ("cancelled", "user")
    assert record["cancelled_at"] == record["completed_at"] is not None
    assert record["error"] == f"Run {handle.id} was cancelled"


@pytest.mark.parametrize("fails_after", [False, True])
async def test_what_the_code_does_after_it_was_cancelled_counts_nothing(
    polos: Polos, fails_after: bool
) -> None:
    gate = Gate()
    later: list[str] = []

    @workflow(id="e2e-stubborn")
    async def stubborn(ctx: WorkflowContext) -> str:
        try:
            await gate.passed()
        except asyncio.CancelledError:
            later.append("stopped")
            if fails_after:
                raise ValueError("too late") from None
            try:
                await ctx.step.run("after", lambda: later.append("step ran"))
            except Exception:
                later.append("swallowed")
        return "too late"

    handle = await stubborn.invoke(polos)
    await gate.reached()
    await handle.cancel(polos)
    await until(lambda: later)

    assert (await polos.wait(handle.id))["status"] == "cancelled"
    assert later == ["stopped"]


async def test_cancelling_while_a_step_runs_stops_the_step(polos: Polos) -> None:
    body = Body()

    @workflow(id="e2e-cancel-step")
    async def runs(ctx: WorkflowContext) -> None:
        await ctx.step.run("long", body)

    handle = await runs.invoke(polos)
    await until(lambda: body.is_running)
    await polos.cancel_execution(handle.id)
    await until(lambda: body.was_stopped, seconds=3)


async def test_cancelling_a_parent_cancels_everything_below(polos: Polos) -> None:
    body = Body()
    ids: dict[str, str] = {}

    @workflow(id="e2e-cancel-leaf")
    async def leaf(ctx: WorkflowContext) -> None:
        ids["leaf"] = ctx.execution_id
        await body()

    @workflow(id="e2e-cancel-middle")
    async def middle(ctx: WorkflowContext) -> None:
        ids["middle"] = ctx.execution_id
        await ctx.step.invoke_and_wait("leaf", leaf)

    @workflow(id="e2e-cancel-root")
    async def root(ctx: WorkflowContext) -> None:
        await ctx.step.invoke_and_wait("middle", middle)

    handle = await root.invoke(polos)
    await until(lambda: body.is_running)
    assert await handle.cancel(polos) is True

    for run_id in (handle.id, ids["middle"], ids["leaf"]):
        assert (await polos.wait(run_id, timeout_seconds=3))["status"] == "cancelled"
    await until(lambda: body.was_stopped, seconds=3)


@on_both
async def test_a_cancelled_child_fails_the_parents_step_and_leaves_siblings_alone(polos: Polos) -> None:
    bodies = {"a": Body(), "b": Gate()}
    ids: dict[str, str] = {}

    @workflow(id="e2e-cancel-child")
    async def one(ctx: WorkflowContext, payload: dict[str, Any]) -> str:
        name = payload["name"]
        ids[name] = ctx.execution_id
        body = bodies[name]
        await (body() if isinstance(body, Body) else body.passed())
        return f"{name} ended"

    @workflow(id="e2e-cancel-children")
    async def parent(ctx: WorkflowContext) -> list[str]:
        found = await asyncio.gather(
            *(ctx.step.invoke_and_wait(name, one, {"name": name}) for name in bodies), return_exceptions=True
        )
        return [f"{type(each).__name__}: {each}" for each in found]

    handle = await parent.invoke(polos)
    await until(lambda: len(ids) == 2)
    await polos.cancel_execution(ids["a"])
    bodies["b"].open()  # type: ignore[union-attr]

    record = await polos.wait(handle.id, timeout_seconds=5)
    assert record["result"] == [f"StepExecutionError: Run {ids['a']} was cancelled", "str: b ended"]


async def test_cancelling_an_ended_or_unknown_run_says_false(polos: Polos) -> None:
    @workflow(id="e2e-ended")
    async def ends(ctx: WorkflowContext) -> str:
        return "done"

    handle = await ends.invoke(polos)
    await polos.wait(handle.id)

    assert await handle.cancel(polos) is False
    assert await polos.cancel_execution("no-such-run") is False
    assert (await polos.get_execution(handle.id))["status"] == "completed"


async def test_run_raises_at_once_when_the_run_is_cancelled(polos: Polos) -> None:
    body = Body()
    ids: list[str] = []

    @workflow(id="e2e-cancel-waited")
    async def runs(ctx: WorkflowContext) -> None:
        ids.append(ctx.execution_id)
        await body()

    waiting = asyncio.create_task(runs.run(polos))
    await until(lambda: body.is_running)
    await polos.cancel_execution(ids[0])

    async with asyncio.timeout(3):
        with pytest.raises(RunFailedError, match="cancelled"):
            await waiting


# -- ends of other kinds reach what is below, too


@pytest.mark.parametrize("how", ["fails", "times out", "completes without it"])
@on_both
async def test_the_end_of_a_parent_cancels_the_children_it_waited_for(polos: Polos, how: str) -> None:
    body = Body()
    ids: dict[str, str] = {}

    @workflow(id="e2e-end-leaf")
    async def leaf(ctx: WorkflowContext) -> None:
        ids["leaf"] = ctx.execution_id
        await body()

    @workflow(id="e2e-end-middle")
    async def middle(ctx: WorkflowContext) -> None:
        ids["middle"] = ctx.execution_id
        await ctx.step.invoke_and_wait("leaf", leaf)

    @workflow(id="e2e-end-root")
    async def root(ctx: WorkflowContext) -> str:
        waiting = asyncio.create_task(ctx.step.invoke_and_wait("middle", middle))
        await until(lambda: body.is_running)
        if how == "fails":
            raise StepExecutionError("no retry helps")
        if how == "times out":
            await asyncio.sleep(60)
        del waiting
        return "without it"

    handle = await root.invoke(polos, run_timeout_seconds=1 if how == "times out" else None)
    assert (await polos.wait(handle.id, timeout_seconds=10))["status"] in {"failed", "completed"}
    for name in ("middle", "leaf"):
        record = await polos.wait(ids[name], timeout_seconds=5)
        assert (record["status"], record["cancelled_by"]) == ("cancelled", "parent")
    await until(lambda: body.was_stopped, seconds=5)


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_what_was_only_started_goes_on_unless_its_parent_was_cancelled(
    polos: Polos, is_cancelled: bool
) -> None:
    gate = Gate()
    ids: dict[str, str] = {}

    @workflow(id="e2e-end-started")
    async def started(ctx: WorkflowContext) -> str:
        await gate.passed()
        return "went on"

    @workflow(id="e2e-end-starter")
    async def starter(ctx: WorkflowContext) -> None:
        ids["started"] = (await ctx.step.invoke("started", started)).id
        await gate.reached()
        if is_cancelled:
            await asyncio.sleep(60)
        raise StepExecutionError("no retry helps")

    handle = await starter.invoke(polos)
    await gate.reached()
    if is_cancelled:
        await until(lambda: "started" in ids)
        await polos.cancel_execution(handle.id)
    await polos.wait(handle.id, timeout_seconds=5)
    if not is_cancelled:
        gate.open()
    record = await polos.wait(ids["started"], timeout_seconds=5)
    assert record["status"] == ("cancelled" if is_cancelled else "completed")


@on_both
async def test_fifty_children_are_cancelled_within_five_seconds(polos: Polos) -> None:
    bodies = [Body() for _ in range(50)]

    @workflow(id="e2e-cancel-one-of-fifty")
    async def one(ctx: WorkflowContext, payload: dict[str, Any]) -> None:
        await bodies[payload["number"]]()

    @workflow(id="e2e-cancel-fifty")
    async def parent(ctx: WorkflowContext) -> None:
        await asyncio.gather(
            *(ctx.step.invoke_and_wait(f"c{n}", one, {"number": n}) for n in range(len(bodies)))
        )

    handle = await parent.invoke(polos)
    await until(lambda: sum(body.is_running for body in bodies) == len(bodies))
    await polos.cancel_execution(handle.id)
    await until(lambda: all(body.was_stopped for body in bodies), seconds=5)


async def test_a_run_that_has_not_begun_is_cancelled_and_never_begins(polos: Polos) -> None:
    begun: list[str] = []

    @workflow(id="e2e-cancel-queued")
    async def later(ctx: WorkflowContext) -> None:
        begun.append(ctx.execution_id)

    handle = await polos.invoke("e2e-cancel-queued", delay_seconds=0.5)
    assert await polos.cancel_execution(handle.id)
    assert (await polos.wait(handle.id))["status"] == "cancelled"
    other = await polos.invoke("e2e-cancel-queued", delay_seconds=0.6)
    await polos.wait(other.id, timeout_seconds=10)
    assert begun == [other.id]


async def test_a_cancelled_run_does_not_wait_for_a_thread(polos: Polos) -> None:
    """A thread cannot be stopped; what it does afterwards counts nothing, and nothing follows it."""
    gate = Gate()
    later: list[str] = []

    @workflow(id="e2e-cancel-sync")
    async def runs(ctx: WorkflowContext) -> None:
        await ctx.step.run("sync", gate.passed_in_thread)
        later.append("went on")

    handle = await runs.invoke(polos)
    await gate.reached()
    await polos.cancel_execution(handle.id)
    record = await polos.wait(handle.id, timeout_seconds=3)
    gate.open()
    assert record["status"] == "cancelled"
    assert later == []


# -- time


@on_both
async def test_a_run_out_of_time_fails_and_says_so(polos: Polos) -> None:
    body = Body()

    @workflow(id="e2e-timeout")
    async def runs(ctx: WorkflowContext) -> None:
        await body()

    handle = await runs.invoke(polos, run_timeout_seconds=1)
    record = await polos.wait(handle.id, timeout_seconds=5)

    assert (record["status"], record["cancelled_by"]) == ("failed", "timeout")
    assert "timed out after 1 seconds" in record["error"]
    assert record["run_timeout_seconds"] == 1
    await until(lambda: body.was_stopped, seconds=3)


async def test_a_child_out_of_time_fails_the_parents_step_only(polos: Polos) -> None:
    body = Body()

    @workflow(id="e2e-timeout-child")
    async def slow(ctx: WorkflowContext) -> None:
        await body()

    @workflow(id="e2e-timeout-parent")
    async def parent(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.invoke_and_wait("slow", slow, run_timeout_seconds=1)
        except StepExecutionError as error:
            return error.reason
        return "?"

    assert "timed out after 1 seconds" in await parent.run(polos, timeout=8)


async def test_run_gives_up_after_its_timeout_and_names_the_run(polos: Polos) -> None:
    body = Body()
    ids: list[str] = []

    @workflow(id="e2e-client-timeout")
    async def runs(ctx: WorkflowContext) -> None:
        ids.append(ctx.execution_id)
        await body()

    started = time.monotonic()
    with pytest.raises(WorkflowTimeoutError) as caught:
        await runs.run(polos, timeout=0.3)

    assert time.monotonic() - started < 2
    assert caught.value.execution_id == ids[0]
    assert caught.value.timeout_seconds == 0.3
    record = await polos.wait(ids[0], timeout_seconds=5)  # the run has the same limit, in whole seconds
    assert (record["status"], record["cancelled_by"]) == ("failed", "timeout")
