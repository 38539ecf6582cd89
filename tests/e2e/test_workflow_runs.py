"""Workflows from start to end: payloads and results, state, sessions, attempts."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import datetime
from typing import Any

import pytest
from backends import on_both
from pydantic import BaseModel

from polos import Polos, StepExecutionError, WorkflowContext, WorkflowState, tool, workflow
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(120)


class Number(BaseModel):
    n: int


class Counts(WorkflowState):
    seen: int = 0


@workflow(id="e2e-double")
async def double(ctx: WorkflowContext, payload: Number) -> Number:
    return Number(n=payload.n * 2)


@on_both
async def test_a_workflow_returns_what_its_steps_and_children_returned(polos: Polos) -> None:
    @workflow(id="e2e-family")
    async def family(ctx: WorkflowContext, payload: Number) -> dict[str, Any]:
        step = await ctx.step.run("step", lambda: Number(n=payload.n + 1))
        child = await ctx.step.invoke_and_wait("child", double, step)
        both = await asyncio.gather(
            ctx.step.invoke_and_wait("left", double, child),
            ctx.step.invoke_and_wait("right", "e2e-double", {"n": 5}),
            ctx.step.run("zero", lambda: 0),
        )
        return {"step": step, "child": child, "both": list(both)}

    result = await family.run(polos, Number(n=1))
    assert result == {"step": {"n": 2}, "child": {"n": 4}, "both": [{"n": 8}, {"n": 10}, 0]}


async def test_run_gives_the_model_back(polos: Polos) -> None:
    assert await double.run(polos, {"n": 4}) == Number(n=8)


async def test_a_payload_may_be_left_untyped(polos: Polos) -> None:
    @workflow(id="e2e-untyped")
    async def untyped(ctx, payload):  # type: ignore[no-untyped-def]
        return [type(payload).__name__, payload]

    assert await untyped.run(polos, Number(n=1)) == ["dict", {"n": 1}]


async def test_a_sync_workflow_runs_in_a_thread(polos: Polos) -> None:
    @workflow(id="e2e-sync")
    def sync(ctx: WorkflowContext, payload: Number) -> str:
        time.sleep(0.01)
        return f"{payload.n} in {threading.current_thread().name != threading.main_thread().name}"

    assert await sync.run(polos, Number(n=3)) == "3 in True"


@pytest.mark.parametrize("value", [False, 0, "", [], {}, None])
async def test_a_falsy_result_arrives(polos: Polos, value: object) -> None:
    @workflow(id="e2e-falsy-result")
    async def falsy(ctx: WorkflowContext) -> Any:
        return value

    assert await falsy.run(polos) == value


async def test_a_thousand_steps_are_nothing_special(polos: Polos) -> None:
    @workflow(id="e2e-many-steps")
    async def many(ctx: WorkflowContext) -> int:
        found = [await ctx.step.run(f"step {number}", lambda n=number: n) for number in range(500)]
        found += await asyncio.gather(*(ctx.step.run(f"gathered {n}", lambda n=n: n) for n in range(500)))
        return sum(found)

    assert await many.run(polos) == 2 * sum(range(500))


# -- what fails


async def test_a_payload_that_does_not_fit_fails_at_once_and_says_where(polos: Polos) -> None:
    handle = await double.invoke(polos, {"n": "many"})
    record = await polos.wait(handle.id, timeout_seconds=3)

    assert record["status"] == "failed"
    assert "payload of workflow 'e2e-double' is not Number: n: " in record["error"]
    assert record["retry_count"] == 0
    assert "many" not in record["error"]  # data may be secret


async def test_a_result_that_is_not_json_fails_the_run_and_names_its_type(polos: Polos) -> None:
    @workflow(id="e2e-bad-result")
    async def bad(ctx: WorkflowContext) -> Any:
        return {"lock": threading.Lock()}

    handle = await bad.invoke(polos)
    record = await polos.wait(handle.id, timeout_seconds=3)
    assert record["status"] == "failed"
    assert "result of workflow 'e2e-bad-result'" in record["error"]
    assert "lock at ['lock']" in record["error"]


async def test_a_run_that_raises_is_tried_again_from_its_records(polos: Polos) -> None:
    steps: list[str] = []
    attempts: list[int] = []

    @workflow(id="e2e-retried")
    async def retried(ctx: WorkflowContext) -> list[Any]:
        first = await ctx.step.run("first", lambda: steps.append("first") or 0.0)
        attempts.append(ctx.retry_count)
        if ctx.retry_count < 2:
            raise ConnectionError("not yet")
        return [first, await ctx.step.run("second", lambda: "second")]

    handle = await retried.invoke(polos)
    record = await polos.wait(handle.id, timeout_seconds=12)

    assert record["result"] == [0.0, "second"]
    assert (attempts, steps, record["retry_count"]) == ([0, 1, 2], ["first"], 2)
    assert record["error"] is None


async def test_a_run_that_keeps_raising_fails_with_its_last_error(polos: Polos) -> None:
    attempts: list[int] = []

    @workflow(id="e2e-keeps-raising", state_schema=Counts)
    async def raises(ctx: WorkflowContext) -> None:
        attempts.append(ctx.retry_count)
        ctx.state.seen += 1
        raise ConnectionError(f"attempt {ctx.retry_count}")

    handle = await raises.invoke(polos)
    with pytest.raises(RunFailedError, match="attempt 2"):
        raises._result_of(await polos.wait(handle.id, timeout_seconds=12), handle.id, None)

    assert attempts == [0, 1, 2]
    assert (await polos.get_execution(handle.id))["final_state"] == {"seen": 1}


async def test_an_exit_of_the_interpreter_is_a_failure_and_ends_no_worker(polos: Polos) -> None:
    @tool(id="e2e_exits")
    async def exits(ctx: WorkflowContext) -> None:
        raise SystemExit(3)

    with pytest.raises(RunFailedError, match=r"SystemExit\(3\)"):
        await exits.run(polos, timeout=10)
    assert await double.run(polos, Number(n=1)) == Number(n=2)


async def test_an_exit_of_the_interpreter_in_a_step_fails_the_step(polos: Polos) -> None:
    def leaves() -> None:
        raise SystemExit(3)

    @workflow(id="e2e-step-exits")
    async def exits(ctx: WorkflowContext) -> None:
        await ctx.step.run("leaves", leaves, max_retries=0)

    with pytest.raises(RunFailedError, match=r"Step execution failed after 0 retries: .*SystemExit\(3\)"):
        await exits.run(polos, timeout=10)


# -- state


async def test_state_starts_from_defaults_or_from_what_was_given(polos: Polos) -> None:
    @workflow(id="e2e-state", state_schema=Counts)
    async def counts(ctx: WorkflowContext) -> int:
        ctx.state.seen += 1
        return int(ctx.state.seen)

    assert await counts.run(polos) == 1
    assert await counts.run(polos, initial_state={"seen": 41}) == 42
    assert await counts.run(polos, initial_state=Counts(seen=1)) == 2
    assert await counts.run(polos) == 1  # it does not carry over


async def test_state_is_on_record_when_the_run_has_ended(polos: Polos) -> None:
    @workflow(id="e2e-state-record", state_schema=Counts)
    async def counts(ctx: WorkflowContext) -> None:
        ctx.state.seen += 1

    handle = await counts.invoke(polos, initial_state=Counts(seen=5))
    record = await polos.wait(handle.id)
    assert (record["initial_state"], record["final_state"]) == ({"seen": 5}, {"seen": 6})


async def test_state_is_on_record_when_the_run_has_failed(polos: Polos) -> None:
    @workflow(id="e2e-state-failed", state_schema=Counts)
    async def fails(ctx: WorkflowContext) -> None:
        ctx.state.seen = 7
        raise StepExecutionError("over")

    handle = await fails.invoke(polos)
    assert (await polos.wait(handle.id))["final_state"] == {"seen": 7}


async def test_a_workflow_without_a_schema_has_no_state_and_ignores_one(
    polos: Polos, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow(id="e2e-stateless")
    async def stateless(ctx: WorkflowContext) -> bool:
        return ctx.state is None

    assert await stateless.run(polos, initial_state={"seen": 1}) is True
    assert "e2e-stateless' has no state_schema" in caplog.text


# -- context


async def test_the_context_says_who_runs_and_for_whom(polos: Polos) -> None:
    @workflow(id="e2e-context")
    async def context(ctx: WorkflowContext) -> dict[str, Any]:
        return {**ctx.to_dict(), "aware": ctx.created_at.tzinfo is not None}

    handle = await context.invoke(polos, session_id="s", user_id="u")
    seen = (await polos.wait(handle.id))["result"]

    assert seen["execution_id"] == seen["root_execution_id"] == handle.id
    assert seen["workflow_id"] == seen["root_workflow_id"] == "e2e-context"
    assert (seen["session_id"], seen["user_id"]) == ("s", "u")
    assert (seen["parent_execution_id"], seen["retry_count"], seen["workflow_type"]) == (None, 0, "workflow")
    assert seen["aware"] is True
    assert datetime.fromisoformat(seen["created_at"]) == datetime.fromisoformat(handle.created_at or "")


async def test_a_run_without_a_session_gets_one_that_its_handle_knows(polos: Polos) -> None:
    handle = await double.invoke(polos, Number(n=1))
    assert handle.session_id
    assert (await polos.get_execution(handle.id))["session_id"] == handle.session_id
