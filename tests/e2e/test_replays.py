"""What a run finds again when another worker goes on with it: the worker here is ended and started anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from backends import on_both
from gates import Gate, until
from models.servers import ModelServer
from pydantic import BaseModel

from polos import (
    Agent,
    AgentResult,
    Polos,
    StepExecutionError,
    WorkflowContext,
    WorkflowState,
    tool,
    workflow,
)
from polos.engine.children import child_id_of

pytestmark = pytest.mark.timeout(120)


class Number(BaseModel):
    n: int


class Counts(WorkflowState):
    passes: int = 0


@workflow(id="e2e-replay-double")
async def double(ctx: WorkflowContext, payload: Number) -> Number:
    if payload.n < 0:
        raise StepExecutionError("negative")
    return Number(n=payload.n * 2)


@workflow(id="e2e-nowhere")
async def nowhere(ctx: WorkflowContext) -> None:
    """Never runs: what starts it sends it to a route that no worker consumes."""


async def wait_outside(ctx: WorkflowContext) -> str:
    """Wait without executing anything, until `let_in`."""
    nowhere.route = "nowhere"
    waiting = asyncio.ensure_future(reason_of(ctx.step.invoke_and_wait("gate", nowhere)))
    await asyncio.sleep(0)  # it has been asked for now
    nowhere.route = None  # or a worker that starts would serve it
    return await waiting


async def waits_outside(polos: Polos, run_id: str) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await polos.get_execution(child_id_of(run_id, "gate"))
                return
            except ValueError:
                await asyncio.sleep(0.01)


async def let_in(polos: Polos, run_id: str) -> None:
    assert await polos.cancel_execution(child_id_of(run_id, "gate"))


async def restart(polos: Polos) -> None:
    await polos.stop()
    await polos.start()


async def reason_of(step: Any) -> str:
    try:
        await step
    except StepExecutionError as error:
        return error.reason
    return "it did not fail"


@on_both
async def test_a_replay_finds_every_value_of_the_first_pass(polos: Polos) -> None:
    passes: list[str] = []
    calls: list[str] = []

    def once(value: Any) -> Callable[[], Any]:
        return lambda: calls.append(repr(value)) or value

    def fails() -> None:
        calls.append("fails")
        raise ValueError("no stock")

    @workflow(id="e2e-replay-values", state_schema=Counts)
    async def values(ctx: WorkflowContext) -> int:
        ctx.state.passes += 1
        seen = [
            await ctx.step.uuid("uuid"),
            await ctx.step.now("now"),
            await ctx.step.random("random"),
            *[
                await ctx.step.run(f"falsy {value!r}", once(value))
                for value in (False, 0, 0.0, "", [], {}, None)
            ],
            await ctx.step.run("model", once(Number(n=1))),
            await ctx.step.run("models", once([Number(n=1)])),
            await ctx.step.run("tuple", once((1, {2: "two"}))),
            await reason_of(ctx.step.run("fails", fails, max_retries=1, base_delay=0.01)),
            await ctx.step.run("a/b?#%", once("odd")),
            await ctx.step.run("$uuid", once("dollar")),
            await ctx.step.invoke_and_wait("child", double, Number(n=2)),
            await reason_of(ctx.step.invoke_and_wait("bad child", double, Number(n=-1))),
            (await ctx.step.invoke("start", double, Number(n=3))).to_dict(),
            await asyncio.gather(*(ctx.step.run(f"gathered {n}", once(n)) for n in range(3))),
        ]
        passes.append(repr(seen))
        await wait_outside(ctx)
        return int(ctx.state.passes)

    handle = await values.invoke(polos)
    await waits_outside(polos, handle.id)
    recorded = list(calls)
    await restart(polos)
    await let_in(polos, handle.id)
    record = await polos.wait(handle.id, timeout_seconds=10)

    assert record["status"] == "completed", record["error"]
    first, second = passes
    assert first == second
    assert calls == recorded
    assert "Step execution failed after 1 retries: no stock" in first
    assert record["result"] == 1  # state is made anew for each pass
    assert record["retry_count"] == 0


async def test_a_step_that_was_cut_off_runs_again(polos: Polos) -> None:
    calls: list[int] = []
    gate = Gate()

    async def slow() -> str:
        calls.append(1)
        await gate.passed()
        return "ended"

    @workflow(id="e2e-replay-cut")
    async def cut(ctx: WorkflowContext) -> str:
        return str(await ctx.step.run("slow", slow))

    handle = await cut.invoke(polos)
    await gate.reached()
    await restart(polos)
    await until(lambda: len(calls) == 2)
    gate.open()

    record = await polos.wait(handle.id, timeout_seconds=10)
    assert (record["result"], record["retry_count"]) == ("ended", 0)


async def test_an_agent_goes_on_without_repeating_calls_or_tools(polos: Polos, model: ModelServer) -> None:
    gate = Gate()
    calls: list[str] = []

    @tool(id="e2e_replay_tool")
    async def slow_or_fast(ctx: WorkflowContext, input: Number) -> str:
        calls.append(str(input.n))
        if input.n:
            await gate.passed()
        return f"done {input.n}"

    agent = Agent(id="e2e-replay-agent", provider="openai", model="gpt-4o", tools=[slow_or_fast])
    model.calls(("e2e_replay_tool", {"n": 0}), ("e2e_replay_tool", {"n": 1}))
    model.says("All done.")
    handle = await agent.invoke(polos, {"input": "Go."})
    await gate.reached()
    await until(lambda: len(calls) == 2)
    gate.open()  # the tool ends while the worker does, or is cut off
    await restart(polos)

    await polos.wait(handle.id, timeout_seconds=15)
    result: AgentResult = (await handle.get(polos))["result"]
    assert result.result == "All done."
    assert [found.result for found in result.tool_results] == ["done 0", "done 1"]
    assert calls.count("0") == 1
    assert len(model.requests) == 2


async def test_the_same_choice_is_made_between_steps_that_raced(polos: Polos) -> None:
    winners: list[str] = []

    async def late() -> str:
        await asyncio.sleep(0.05)
        return "late"

    @workflow(id="e2e-replay-race")
    async def race(ctx: WorkflowContext) -> str:
        tasks = [
            asyncio.create_task(ctx.step.run("late", late)),
            asyncio.create_task(ctx.step.run("early", lambda: "early")),
        ]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        winners.append(done.pop().result())
        await asyncio.gather(*tasks)
        await wait_outside(ctx)
        return winners[-1]

    handle = await race.invoke(polos)
    await waits_outside(polos, handle.id)
    await restart(polos)
    await let_in(polos, handle.id)
    assert (await polos.wait(handle.id, timeout_seconds=10))["result"] == "early"
    assert winners == ["early", "early"]


# -- code that changed meanwhile


async def blocked_after(polos: Polos, first: Any, second: Any) -> str:
    """Run `first` until it waits, go on with `second`, and return why the run is blocked."""

    async def begin(ctx: WorkflowContext) -> str:
        await first(ctx)
        return await wait_outside(ctx)

    changed = workflow(id="e2e-changed")(begin)
    handle = await changed.invoke(polos)
    await waits_outside(polos, handle.id)
    await polos.stop()
    workflow(id="e2e-changed")(second)
    await polos.start()
    await let_in(polos, handle.id)
    async with asyncio.timeout(15):
        while (record := await polos.get_execution(handle.id))["status"] in {"queued", "running", "waiting"}:
            await asyncio.sleep(0.02)
    assert record["status"] == "blocked"
    assert record["completed_at"] is None
    assert await polos.cancel_execution(handle.id)
    return str(record["error"])


async def test_code_that_dropped_a_step_blocks_the_run_and_names_it(polos: Polos) -> None:
    async def first(ctx: WorkflowContext) -> None:
        await ctx.step.run("charge", lambda: 1)

    async def second(ctx: WorkflowContext) -> None:
        await wait_outside(ctx)

    error = await blocked_after(polos, first, second)
    assert "no longer asks for: ['charge']" in error


async def test_code_that_asks_for_another_step_first_blocks_the_run_and_names_both(polos: Polos) -> None:
    async def first(ctx: WorkflowContext) -> None:
        await ctx.step.run("charge", lambda: 1)

    async def second(ctx: WorkflowContext) -> None:
        await ctx.step.run("check", lambda: 1)
        await ctx.step.run("charge", lambda: 1)

    error = await blocked_after(polos, first, second)
    assert "'charge'" in error
    assert "it now asks for ['check']" in error


async def test_code_that_makes_a_step_another_kind_blocks_the_run(polos: Polos) -> None:
    async def first(ctx: WorkflowContext) -> None:
        await ctx.step.run("id", lambda: 1)

    async def second(ctx: WorkflowContext) -> None:
        await ctx.step.uuid("id")

    error = await blocked_after(polos, first, second)
    assert "'id' was recorded as 'run'; the code now asks for it as 'uuid'" in error


@pytest.mark.parametrize("ends", ["returns", "raises"])
async def test_code_that_ends_without_its_recorded_steps_blocks_the_run(polos: Polos, ends: str) -> None:
    async def first(ctx: WorkflowContext) -> None:
        await ctx.step.run("charge", lambda: 1)

    async def second(ctx: WorkflowContext) -> str:
        if ends == "raises":
            raise ValueError("gone")
        return "nothing to do"

    error = await blocked_after(polos, first, second)
    assert "'charge'" in error
    assert "'gate'" in error


async def test_a_deviation_that_the_code_swallows_still_blocks_the_run(polos: Polos) -> None:
    async def first(ctx: WorkflowContext) -> None:
        await ctx.step.run("id", lambda: 1)

    async def second(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.uuid("id")
        except Exception:
            return "swallowed"
        return "?"

    assert "'id'" in await blocked_after(polos, first, second)


async def test_a_client_that_waits_is_told_that_the_run_is_blocked(
    polos: Polos, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow(id="e2e-told-blocked")
    async def first(ctx: WorkflowContext) -> None:
        await ctx.step.uuid("charge")
        await wait_outside(ctx)

    handle = await first.invoke(polos)
    await waits_outside(polos, handle.id)
    await polos.stop()

    @workflow(id="e2e-told-blocked")
    async def second(ctx: WorkflowContext) -> None:
        await ctx.step.run("charge", lambda: 1)

    await polos.start()
    await let_in(polos, handle.id)
    waiting = asyncio.create_task(polos.wait(handle.id))
    await until(lambda: f"Run {handle.id} is blocked" in caplog.text)
    await polos.cancel_execution(handle.id)
    assert (await waiting)["status"] == "cancelled"
