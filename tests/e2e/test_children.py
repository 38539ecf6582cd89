"""Child runs: waited for, or started and left alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backends import on_both
from gates import Gate
from pydantic import BaseModel

from polos import ExecutionHandle, Polos, StepExecutionError, WorkflowContext, workflow
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(120)


class Number(BaseModel):
    n: int


@workflow(id="e2e-child")
async def child(ctx: WorkflowContext, payload: Number) -> Number:
    if payload.n < 0:
        raise StepExecutionError(f"{payload.n} is negative")
    return Number(n=payload.n * 2)


@workflow(id="e2e-plain-child")
async def plain_child(ctx: WorkflowContext, payload: dict[str, Any]) -> Any:
    return payload["give"]


@on_both
async def test_a_parent_gets_the_result_as_the_class_it_had(polos: Polos) -> None:
    @workflow(id="e2e-parent")
    async def parent(ctx: WorkflowContext) -> str:
        by_object = await ctx.step.invoke_and_wait("object", child, Number(n=1))
        by_id = await ctx.step.invoke_and_wait("id", "e2e-child", {"n": 2})
        return f"{by_object!r} {by_id!r}"

    assert await parent.run(polos) == "Number(n=2) Number(n=4)"


@pytest.mark.parametrize("value", [0, False, "", [], None])
async def test_a_falsy_result_of_a_child_arrives(polos: Polos, value: object) -> None:
    @workflow(id="e2e-falsy-parent")
    async def parent(ctx: WorkflowContext) -> list[Any]:
        return [await ctx.step.invoke_and_wait("child", plain_child, {"give": value})]

    assert await parent.run(polos) == [value]


@on_both
async def test_a_failed_child_fails_the_parents_step_with_its_reason(polos: Polos) -> None:
    @workflow(id="e2e-parent-of-failed")
    async def parent(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.invoke_and_wait("child", child, Number(n=-1))
        except StepExecutionError as error:
            return error.reason
        return "?"

    assert await parent.run(polos) == "-1 is negative"


async def test_a_failed_child_that_nobody_catches_fails_the_parent_without_another_attempt(
    polos: Polos,
) -> None:
    @workflow(id="e2e-parent-fails")
    async def parent(ctx: WorkflowContext) -> None:
        await ctx.step.invoke_and_wait("child", child, Number(n=-1))

    handle = await parent.invoke(polos)
    record = await polos.wait(handle.id)
    assert (record["status"], record["error"], record["retry_count"]) == ("failed", "-1 is negative", 0)


async def test_children_gathered_run_at_the_same_time(polos: Polos) -> None:
    meeting = asyncio.Barrier(3)

    @workflow(id="e2e-meeting-child")
    async def meets(ctx: WorkflowContext, payload: dict[str, Any]) -> str:
        await asyncio.wait_for(meeting.wait(), 5)
        return str(payload["name"])

    @workflow(id="e2e-meeting")
    async def parent(ctx: WorkflowContext) -> list[str]:
        return list(
            await asyncio.gather(*(ctx.step.invoke_and_wait(name, meets, {"name": name}) for name in "abc"))
        )

    assert await parent.run(polos) == ["a", "b", "c"]


async def test_a_child_carries_its_place_in_the_tree(polos: Polos) -> None:
    @workflow(id="e2e-leaf")
    async def leaf(ctx: WorkflowContext) -> dict[str, Any]:
        return ctx.to_dict()

    @workflow(id="e2e-middle")
    async def middle(ctx: WorkflowContext) -> dict[str, Any]:
        return {"leaf": await ctx.step.invoke_and_wait("leaf", leaf), "id": ctx.execution_id}

    @workflow(id="e2e-root")
    async def root(ctx: WorkflowContext) -> dict[str, Any]:
        return dict(await ctx.step.invoke_and_wait("middle", middle))

    handle = await root.invoke(polos, session_id="the-session", user_id="the-user")
    found = (await polos.wait(handle.id))["result"]
    seen = found["leaf"]

    assert seen["parent_execution_id"] == found["id"]
    assert (seen["root_execution_id"], seen["root_workflow_id"]) == (handle.id, "e2e-root")
    assert (seen["session_id"], seen["user_id"]) == ("the-session", "the-user")
    record = await polos.get_execution(seen["execution_id"])
    assert record["step_key"] == "leaf"
    assert record["deployment_id"] == seen["deployment_id"]


async def test_invoke_goes_on_at_once_and_its_handle_says_where_the_child_is(polos: Polos) -> None:
    gate = Gate()

    @workflow(id="e2e-slow-child")
    async def slow(ctx: WorkflowContext) -> str:
        await gate.passed()
        return "ended"

    @workflow(id="e2e-starter")
    async def starter(ctx: WorkflowContext) -> dict[str, Any]:
        handle = await ctx.step.invoke("start", slow)
        return handle.to_dict()

    run = await starter.invoke(polos, session_id="s", user_id="u")
    given = (await polos.wait(run.id))["result"]
    gate.open()
    handle = ExecutionHandle.model_validate(given)

    assert handle.workflow_id == "e2e-slow-child"
    assert (handle.parent_execution_id, handle.root_execution_id) == (run.id, run.id)
    assert (handle.root_workflow_id, handle.step_key) == ("e2e-starter", "start")
    assert (handle.session_id, handle.user_id) == ("s", "u")
    assert (await polos.wait(handle.id))["result"] == "ended"
    assert handle.created_at == (await polos.get_execution(handle.id))["created_at"]


async def test_the_failure_of_a_child_nobody_waits_for_does_not_touch_the_parent(polos: Polos) -> None:
    @workflow(id="e2e-careless")
    async def careless(ctx: WorkflowContext) -> str:
        return (await ctx.step.invoke("start", child, Number(n=-1))).id

    child_id = await careless.run(polos)
    assert (await polos.wait(child_id))["status"] == "failed"


async def test_children_may_be_started_inside_a_step_function(polos: Polos) -> None:
    @workflow(id="e2e-inside")
    async def parent(ctx: WorkflowContext) -> int:
        async def body() -> int:
            found: Number = await ctx.step.invoke_and_wait("child", child, Number(n=4))
            return found.n

        return await ctx.step.run("outer", body)

    assert await parent.run(polos) == 8


# -- what is refused


async def test_an_unknown_workflow_fails_the_step_and_names_the_id(polos: Polos) -> None:
    @workflow(id="e2e-unknown-child")
    async def parent(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.invoke_and_wait("child", "no-such-workflow", {})
        except StepExecutionError as error:
            return error.reason
        return "?"

    assert "'no-such-workflow' is not defined" in await parent.run(polos)


async def test_a_missing_payload_is_refused_before_a_child_is_started(polos: Polos) -> None:
    @workflow(id="e2e-no-payload")
    async def parent(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.invoke("child", child, None)
        except ValueError as error:
            return str(error)
        return "?"

    assert "workflow 'e2e-child' needs a payload" in await parent.run(polos)


async def test_a_payload_that_does_not_fit_fails_the_child_at_once(polos: Polos) -> None:
    @workflow(id="e2e-unfit-payload")
    async def parent(ctx: WorkflowContext) -> None:
        await ctx.step.invoke_and_wait("child", child, {"m": 1})

    with pytest.raises(
        RunFailedError, match=r"payload of workflow 'e2e-child' is not Number: n: Field required"
    ):
        await parent.run(polos)


@pytest.mark.parametrize("call", ["run", "invoke", "batch", "client"])
async def test_starting_runs_past_the_journal_is_refused_inside_a_run(polos: Polos, call: str) -> None:
    @workflow(id="e2e-past-journal")
    async def past(ctx: WorkflowContext) -> str:
        try:
            match call:
                case "run":
                    await child.run(polos, Number(n=1))
                case "invoke":
                    await child.invoke(polos, Number(n=1))
                case "batch":
                    await polos.batch_invoke([])
                case _:
                    await polos.invoke("e2e-child", {"n": 1})
        except RuntimeError as error:
            return str(error)
        return "?"

    assert "ctx.step.invoke" in await past.run(polos)
