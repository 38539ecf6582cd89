"""Code in a real await, and code with a time limit, is neither put away nor taken for a deviation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fleet import Fleet, until

from polos import StepExecutionError, WorkflowContext, workflow
from polos.engine.parking import park
from polos.engine.tasks import run_tasks, start_apart

log: list[str] = []
payments: dict[str, threading.Event] = {}
first_pass: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    log.clear()
    payments["done"] = threading.Event()
    first_pass["stay"] = asyncio.Event()


def pay() -> str:
    log.append("paying")
    payments["done"].wait(20)
    return "paid"


async def thread_in_wait(ctx: WorkflowContext) -> Any:
    paying = asyncio.get_running_loop().run_in_executor(None, pay)
    await asyncio.wait({paying})
    return await ctx.step.run("after", lambda: "after")


async def thread_in_as_completed(ctx: WorkflowContext) -> Any:
    for each in asyncio.as_completed([asyncio.get_running_loop().run_in_executor(None, pay)]):
        await each
    return await ctx.step.run("after", lambda: "after")


async def thread_in_wait_for(ctx: WorkflowContext) -> Any:
    await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, pay), 30)
    return await ctx.step.run("after", lambda: "after")


SHAPES: dict[str, Callable[[WorkflowContext], Awaitable[Any]]] = {
    shape.__name__: shape for shape in (thread_in_wait, thread_in_as_completed, thread_in_wait_for)
}


@workflow(id="deviation-threads")
async def threads(ctx: WorkflowContext, shape: str) -> Any:
    result = await SHAPES[shape](ctx)
    if len(log) == 1:
        await first_pass["stay"].wait()
    return result


@pytest.mark.parametrize("shape", sorted(SHAPES))
async def test_a_replay_waits_for_a_thread_before_it_speaks_of_a_deviation(fleet: Fleet, shape: str) -> None:
    first = fleet.hire()
    run_id = fleet.create("deviation-threads", f'"{shape}"')
    fleet.sweep()
    payments["done"].set()
    await until(lambda: fleet.record(run_id)["seq"] == 1)
    await fleet.bury(first)
    payments["done"].clear()
    fleet.hire()
    fleet.sweep()
    await until(lambda: len(log) == 2)
    await asyncio.sleep(0.05)  # what was wrong took a few turns of the loop
    payments["done"].set()
    assert (await fleet.until_ended(run_id))["status"] == "completed"


@pytest.mark.parametrize("shape", sorted(SHAPES))
async def test_a_run_whose_thread_works_is_not_parked(fleet: Fleet, shape: str) -> None:
    worker = fleet.hire()
    run_id = fleet.create("deviation-threads", f'"{shape}"')
    fleet.sweep()
    await until(lambda: log)
    assert not await park(worker.runtime, worker.runtime.executions[run_id])
    payments["done"].set()
    first_pass["stay"].set()
    assert (await fleet.until_ended(run_id))["status"] == "completed"


@workflow(id="deviation-child")
async def never(ctx: WorkflowContext) -> None:
    await asyncio.Event().wait()


@workflow(id="deviation-limit")
async def limited(ctx: WorkflowContext) -> Any:
    try:
        await asyncio.wait_for(ctx.step.invoke_and_wait("slow", never), 0.2)
    except TimeoutError:
        result = await ctx.step.run("fallback", lambda: "fallback")
    log.append("pass")
    if len(log) == 1:
        await first_pass["stay"].wait()
    return result


async def test_a_time_limit_that_struck_before_strikes_again_on_replay(fleet: Fleet) -> None:
    first = fleet.hire()
    run_id = fleet.create("deviation-limit")
    fleet.sweep()
    await until(lambda: log)
    await fleet.bury(first)
    fleet.hire()
    run = await fleet.until_ended(run_id)
    assert (run["status"], run["output"]) == ("completed", '"fallback"')


@workflow(id="deviation-failing-sooner")
async def failing_sooner(ctx: WorkflowContext) -> Any:
    """A body whose own code, outside of steps, fails sooner in its second attempt than in its first."""

    async def beside() -> None:
        await ctx.step.run("one", lambda: None)
        await ctx.step.run("two", lambda: None)
        first_pass["stay"].set()

    log.append("attempt")
    running = [asyncio.create_task(beside())]
    if len(log) == 1:
        await first_pass["stay"].wait()
    assert running
    raise StepExecutionError("refused") if len(log) > 2 else OSError("refused")


async def test_a_body_that_fails_sooner_than_before_has_failed(fleet: Fleet) -> None:
    fleet.hire()
    run_id = fleet.create("deviation-failing-sooner")
    run = await fleet.until_ended(run_id)
    assert (run["status"], run["error"]) == ("failed", "refused")


async def test_a_task_of_the_engine_belongs_to_no_run(fleet: Fleet) -> None:
    tasks: set[asyncio.Task[Any]] = set()
    token = run_tasks.set(tasks)
    start_apart(asyncio.sleep(0))
    own = asyncio.create_task(asyncio.sleep(0))
    run_tasks.reset(token)
    assert tasks == {own}
