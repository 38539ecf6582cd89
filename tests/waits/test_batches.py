"""Children that are started together, in one transaction, and joined."""

from __future__ import annotations

import json
from typing import Any

import pytest
from engine.fleet import Fleet
from pydantic import BaseModel

from polos import BatchStepResult, BatchWorkflowInput, StepExecutionError, WorkflowContext, workflow


class Square(BaseModel):
    value: int


@workflow(id="batches-square")
async def square(ctx: WorkflowContext, payload: dict[str, Any]) -> Square:
    if payload["n"] < 0:
        raise StepExecutionError(f"{payload['n']} is negative")
    return Square(value=payload["n"] ** 2)


def items(*numbers: int) -> list[BatchWorkflowInput]:
    return [BatchWorkflowInput(id="batches-square", payload={"n": number}) for number in numbers]


@workflow(id="batches-join")
async def join(ctx: WorkflowContext, numbers: Any) -> list[Any]:
    results = await ctx.step.batch_invoke_and_wait("squares", items(*numbers))
    assert all(isinstance(result, BatchStepResult) for result in results)
    return [result.result.value if result.success else result.error for result in results]


async def test_results_come_in_order_and_failures_raise_nothing(fleet: Fleet) -> None:
    run = await fleet.until_ended(fleet.create("batches-join", "[3, -1, 2]"))
    assert json.loads(run["output"]) == [9, "-1 is negative", 4]


async def test_an_empty_batch_starts_nothing(fleet: Fleet) -> None:
    run = await fleet.until_ended(fleet.create("batches-join", "[]"))
    assert json.loads(run["output"]) == []
    assert run["seq"] == 0


async def test_a_batch_is_joined_after_the_death_of_its_worker(fleet: Fleet) -> None:
    """Whatever was created and recorded by then."""
    for commits in (2, 4, 6):
        await fleet.bury(fleet.workers[0])
        mortal = fleet.hire(dies_at=commits)
        run_id = fleet.create("batches-join", "[1, 2, 3, 4]")
        fleet.sweep()
        await mortal.backend.died.wait()
        await fleet.bury(mortal)
        fleet.hire()
        run = await fleet.until_ended(run_id)
        assert json.loads(run["output"]) == [1, 4, 9, 16]


@workflow(id="batches-detached")
async def detached(ctx: WorkflowContext, numbers: Any) -> list[str]:
    handles = await ctx.step.batch_invoke("squares", items(*numbers))
    await ctx.step.wait_for("pause", seconds=0.2)
    assert [handle.workflow_id for handle in handles] == ["batches-square"] * len(numbers)
    return [handle.id for handle in handles]


async def test_children_nobody_waits_for_are_started_once(fleet: Fleet) -> None:
    """Also where the run is replayed before its end."""
    run = await fleet.until_ended(fleet.create("batches-detached", "[1, 2, 3]"))
    children = json.loads(run["output"])
    assert run["attempt"] > 1
    assert len(set(children)) == 3
    for child in children:
        assert (await fleet.until_ended(child))["parent_id"] == run["id"]


@workflow(id="batches-wrong")
async def wrong(ctx: WorkflowContext, what: Any) -> str:
    good = items(1)
    bad = {
        "unknown": [*good, BatchWorkflowInput(id="batches-nowhere")],
        "payload": [*good, BatchWorkflowInput(id="batches-square")],
        "type": [*good, {"id": "batches-square"}],
        "list": good[0],
    }
    try:
        await ctx.step.batch_invoke_and_wait("batch", bad[what])
    except (StepExecutionError, ValueError) as error:
        return str(error)
    return "started"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("unknown", "'batches-nowhere' is not defined"),
        ("payload", "needs a payload"),
        ("type", "Step 'batch[1]' needs a BatchWorkflowInput, not dict"),
        ("list", "takes a list"),
    ],
)
async def test_all_items_are_checked_before_anything_starts(fleet: Fleet, what: str, said: str) -> None:
    run = await fleet.until_ended(fleet.create("batches-wrong", json.dumps(what)))
    assert said in json.loads(run["output"])
    assert run["seq"] == 0


@workflow(id="batches-clash")
async def clash(ctx: WorkflowContext) -> None:
    await ctx.step.batch_invoke("key", items(1))
    await ctx.step.uuid("key")


async def test_the_key_of_a_batch_is_a_key_like_any_other(fleet: Fleet) -> None:
    run = await fleet.until_ended(fleet.create("batches-clash"))
    assert "used twice" in run["error"]


async def test_a_thousand_children_are_joined(sqlite_fleet: Fleet) -> None:
    fleet = sqlite_fleet
    run_id = fleet.create("batches-join", json.dumps(list(range(1000))))
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == [number**2 for number in range(1000)]
