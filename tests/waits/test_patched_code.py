"""Code that changed while runs were under way: patches, and children that are others now."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from engine.fleet import Fleet, until

from polos import WorkflowContext, workflow
from polos.journal.batches import READ_CREATED
from polos.journal.statements import Statement
from polos.journal.steps import READ_STEPS, step_from

code = {"patched": False, "child": "changed-child"}


@pytest.fixture(autouse=True)
def _old_code() -> None:
    code.update(patched=False, child="changed-child")


@workflow(id="changed-flow")
async def flow(ctx: WorkflowContext) -> list[str]:
    done = [await ctx.step.run("first", lambda: "first")]
    for number in range(2):
        await ctx.step.wait_for(f"pause {number}", seconds=0.15)
        if code["patched"] and await ctx.step.patched("greeting"):
            done.append(await ctx.step.run(f"greet {number}", lambda: "hello"))
        else:
            done.append(await ctx.step.run(f"old {number}", lambda: "good day"))
    return done


async def waits_in(fleet: Fleet, run_id: str, attempt: int) -> None:
    def parked() -> bool:
        run = fleet.record(run_id)
        fleet.sweep()
        return run["status"] == "waiting" and run["attempt"] == attempt

    await until(parked)


async def test_a_run_that_reaches_the_patch_follows_it(fleet: Fleet) -> None:
    run_id = fleet.create("changed-flow")
    await waits_in(fleet, run_id, 1)
    code["patched"] = True
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == ["first", "hello", "hello"]


async def test_a_run_that_went_on_without_the_patch_never_follows_it(fleet: Fleet) -> None:
    run_id = fleet.create("changed-flow")
    await waits_in(fleet, run_id, 2)
    code["patched"] = True
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == ["first", "good day", "good day"]


@workflow(id="changed-leaf")
async def leaf(ctx: WorkflowContext) -> None:
    pass


@workflow(id="changed-branches")
async def branches(ctx: WorkflowContext) -> list[str]:
    """One branch asks the journal between two steps, the other goes from step to step meanwhile."""
    order: list[str] = []

    async def start() -> None:
        await ctx.step.invoke("start", leaf)
        order.append("start")
        await ctx.step.run("after start", lambda: None)

    async def count() -> None:
        for number in range(3):
            await ctx.step.run(f"count {number}", lambda: None)
            order.append(f"count {number}")

    await asyncio.gather(start(), count())
    return order


async def test_no_outcome_overtakes_what_a_branch_asks_the_journal(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a branch would go on in another order when it is replayed, and patches would be misjudged."""
    [worker] = fleet.workers
    read = worker.backend.read

    async def slowly(statement: Statement, params: Any) -> Any:
        if statement is READ_CREATED:
            await asyncio.sleep(0.2)
        return await read(statement, params)

    monkeypatch.setattr(worker.backend, "read", slowly)
    run = await fleet.until_ended(fleet.create("changed-branches"))
    seqs = {row[0]: step_from(row).seq for row in fleet.read(READ_STEPS, run=run["id"])}
    order = json.loads(run["output"])
    assert order == sorted(order, key=lambda name: seqs[name])


@workflow(id="changed-child")
async def child(ctx: WorkflowContext) -> str:
    await ctx.step.wait_for("nap", seconds=0.3)
    return "child"


@workflow(id="changed-other")
async def other(ctx: WorkflowContext) -> str:
    return "other"


@workflow(id="changed-parent")
async def parent(ctx: WorkflowContext) -> Any:
    return await ctx.step.invoke_and_wait("child", code["child"])


async def test_a_child_of_another_workflow_under_a_key_blocks_the_run(fleet: Fleet) -> None:
    run_id = fleet.create("changed-parent")
    fleet.sweep()
    await until(lambda: fleet.record(run_id)["seq"] == 1)
    await fleet.bury(fleet.workers[0])
    code["child"] = "changed-other"
    fleet.hire()
    run = await fleet.until_ended(run_id)
    assert run["status"] == "blocked"
    assert run["error"] == ("Step 'child' started 'changed-child'; the code now asks for 'changed-other'")


@workflow(id="changed-traced")
async def traced(ctx: WorkflowContext) -> str:
    with ctx.step.trace("work", {"n": 1}) as span:
        span.set_attribute("more", 2)
        return await ctx.step.run("work", lambda: "done")


async def test_a_span_without_an_sdk_changes_nothing(fleet: Fleet) -> None:
    run = await fleet.until_ended(fleet.create("changed-traced"))
    assert json.loads(run["output"]) == "done"
