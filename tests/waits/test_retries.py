"""Steps that are tried again much later, or never."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

from engine.fleet import Fleet, until
from sqlalchemy import bindparam, select, update

from polos import StepExecutionError, WorkflowContext, workflow
from polos.engine.parking import park
from polos.journal.statements import Part, Statement, Unit
from polos.journal.steps import READ_STEPS, STEPS, S, step_from

calls: Counter[str] = Counter()
_OVER = Statement(update(STEPS).where(S.run_id == bindparam("run")).values(ring_at=1.0))
_PAUSES = Statement(select(S.ring_at).where(S.run_id == bindparam("run")))


def step_of(fleet: Fleet, run_id: str, name: str) -> Any:
    return {row[0]: step_from(row) for row in fleet.read(READ_STEPS, run=run_id)}.get(name)


@workflow(id="retries-flaky")
async def flaky(ctx: WorkflowContext, successes_after: Any) -> str:
    key = ctx.step.idempotency_key("charge")

    def charge() -> str:
        calls[key] += 1
        if calls[key] <= successes_after:
            raise ValueError(f"failure {calls[key]}")
        return key

    return await ctx.step.run("charge", charge, max_retries=2, base_delay=0.2, max_delay=0.2)


async def test_a_long_pause_between_tries_is_a_durable_wait(fleet: Fleet) -> None:
    """The run is parked for it; tries and failures are on record, and no try is lost or repeated."""
    run_id = fleet.create("retries-flaky", "2")
    fleet.sweep()
    await until(lambda: fleet.record(run_id)["status"] == "waiting")
    waiting = step_of(fleet, run_id, "charge")
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == f"{run_id}:charge"
    assert (waiting.tries, waiting.seq) == (1, None)
    assert calls[f"{run_id}:charge"] == 3
    step = step_of(fleet, run_id, "charge")
    assert [failure["error"] for failure in json.loads(step.failures)] == ["failure 1", "failure 2"]
    assert step.tries == 3


async def test_a_step_fails_when_its_tries_are_used_up_over_several_attempts(fleet: Fleet) -> None:
    run_id = fleet.create("retries-flaky", "9")
    run = await fleet.until_ended(run_id)
    assert run["error"] == "Step execution failed after 2 retries: failure 3"
    assert calls[f"{run_id}:charge"] == 3


gates: dict[str, asyncio.Event] = {}


@workflow(id="retries-late")
async def late(ctx: WorkflowContext, seconds: Any) -> str:
    """Pauses for long beside code that keeps the run from being parked."""

    async def charge() -> str:
        calls[ctx.execution_id] += 1
        if calls[ctx.execution_id] == 1:
            raise ValueError("not yet")
        return "charged"

    charging = ctx.step.run("charge", charge, base_delay=seconds, max_delay=seconds)
    charged, _ = await asyncio.gather(charging, gates[ctx.execution_id].wait())
    return str(charged)


async def test_a_pause_that_is_over_by_the_databases_clock_is_over(fleet: Fleet) -> None:
    """A sweeper sees it first, and once: the run is not parked behind that, to wait for ever."""
    run_id = fleet.create("retries-late", "600")
    gates[run_id] = asyncio.Event()
    fleet.sweep()
    await until(lambda: step_of(fleet, run_id, "charge") is not None)
    fleet.do(Unit((Part(_OVER, {"run": run_id}),), ()))
    await until(lambda: fleet.read(_PAUSES, run=run_id) == [(None,)] or fleet.sweep())
    gates[run_id].set()
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == "charged"


@workflow(id="retries-asking")
async def asking(ctx: WorkflowContext) -> None:
    await ctx.step.suspend("approve", {})


async def test_a_run_that_has_not_looked_at_its_news_is_not_put_away(fleet: Fleet) -> None:
    """It may be the end of a pause that was seen before the pause: put away now, nobody would wake it."""
    run_id = fleet.create("retries-asking")
    fleet.sweep()
    [worker] = fleet.workers
    executions = worker.runtime.executions
    await until(lambda: run_id in executions and executions[run_id].waiting_since is not None)
    execution = executions[run_id]
    execution.is_stale = True
    assert not await park(worker.runtime, execution)
    execution.is_stale = False
    assert await park(worker.runtime, execution)
    assert fleet.record(run_id)["status"] == "waiting"


@workflow(id="retries-once")
async def once(ctx: WorkflowContext, fails: Any) -> str:
    async def pay() -> str:
        calls[ctx.execution_id] += 1
        if fails:
            raise ValueError("declined")
        if calls[ctx.execution_id] == 1 and fails is not None:
            await asyncio.Event().wait()
        return "paid"

    try:
        return await ctx.step.run("pay", pay, at_most_once=True)
    except StepExecutionError as error:
        return str(error)


async def test_an_interrupted_step_that_may_run_once_fails_and_says_so(fleet: Fleet) -> None:
    run_id = fleet.create("retries-once", "false")
    fleet.sweep()
    await until(lambda: calls[run_id] == 1)
    await fleet.bury(fleet.workers[0])
    fleet.hire()
    run = await fleet.until_ended(run_id)
    assert "it may or may not have happened" in json.loads(run["output"])
    assert calls[run_id] == 1


async def test_a_step_that_may_run_once_is_not_retried(fleet: Fleet) -> None:
    run_id = fleet.create("retries-once", "true")
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == "Step execution failed after 0 retries: declined"
    assert calls[run_id] == 1


async def test_a_step_that_may_run_once_is_recorded_like_any_other(fleet: Fleet) -> None:
    run_id = fleet.create("retries-once", None)
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == "paid"
    assert step_of(fleet, run_id, "pay").seq is not None


@workflow(id="retries-nested")
async def nested(ctx: WorkflowContext) -> str:
    async def inner() -> str:
        calls[f"{ctx.execution_id} inner"] += 1
        raise ValueError("inner")

    async def outer() -> Any:
        calls[f"{ctx.execution_id} outer"] += 1
        return await ctx.step.run("inner", inner, max_retries=1, base_delay=0)

    return await ctx.step.run("outer", outer, max_retries=3, base_delay=0)


async def test_the_failure_of_an_inner_step_is_not_tried_again_by_the_outer_one(fleet: Fleet) -> None:
    run_id = fleet.create("retries-nested")
    run = await fleet.until_ended(run_id)
    assert run["status"] == "failed"
    assert calls[f"{run_id} outer"] == 1
    assert calls[f"{run_id} inner"] == 2
