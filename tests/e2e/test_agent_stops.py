"""When an agent that could go on is stopped: conditions, and the limit of model calls."""

from __future__ import annotations

from typing import Any

import pytest
from models.servers import ModelServer
from pydantic import BaseModel

from polos import (
    Agent,
    AgentResult,
    Polos,
    StopConditionContext,
    WorkflowContext,
    executed_tool,
    has_text,
    max_steps,
    max_tokens,
    stop_condition,
    tool,
)
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(120)
LIMIT = 4  # POLOS_AGENT_MAX_STEPS of the program under test


class Query(BaseModel):
    query: str


@tool(id="e2e_look")
async def look(ctx: WorkflowContext, input: Query) -> str:
    return f"nothing on {input.query}"


@tool(id="e2e_note")
async def note(ctx: WorkflowContext) -> str:
    return "noted"


def agent_with(*conditions: Any) -> Agent:
    return Agent(
        id="e2e-stops",
        provider="openai",
        model="gpt-4o",
        tools=[look, note],
        stop_conditions=list(conditions) or None,
    )


def looks(model: ModelServer, times: int, *, text: str | None = None) -> None:
    for number in range(times):
        model.calls(("e2e_look", {"query": str(number)}), text=text)


def end_of(result: AgentResult) -> tuple[int, str | None]:
    return result.total_steps, result.stop_reason


async def test_max_steps_ends_after_so_many_turns(polos: Polos, model: ModelServer) -> None:
    looks(model, 5)
    assert end_of(await agent_with(max_steps(count=2)).run(polos, "Go.")) == (2, "stop_condition")


async def test_max_steps_may_allow_more_than_the_limit(polos: Polos, model: ModelServer) -> None:
    looks(model, LIMIT + 2)
    model.says("found")
    assert end_of(await agent_with(max_steps()).run(polos, "Go.")) == (LIMIT + 3, "completed")


async def test_max_tokens_ends_when_the_sum_is_reached(polos: Polos, model: ModelServer) -> None:
    looks(model, 3)
    one = await agent_with(max_tokens(limit=1)).run(polos, "Go.")
    assert end_of(one) == (1, "stop_condition")

    model.reset()
    looks(model, 3)
    two = await agent_with(max_tokens(limit=one.usage.total_tokens + 1)).run(polos, "Go.")
    assert end_of(two) == (2, "stop_condition")


async def test_executed_tool_ends_when_all_were_called(polos: Polos, model: ModelServer) -> None:
    looks(model, 1)
    model.calls(("e2e_note", {}))
    looks(model, 1)
    condition = executed_tool(tool_names=["e2e_look", "e2e_note"])
    assert end_of(await agent_with(condition).run(polos, "Go.")) == (2, "stop_condition")


async def test_has_text_ends_when_all_was_said(polos: Polos, model: ModelServer) -> None:
    looks(model, 1, text="I will LOOK.")
    looks(model, 1, text="This is the END.")
    looks(model, 1)
    result = await agent_with(has_text(texts=["LOOK", "END"])).run(polos, "Go.")
    assert end_of(result) == (2, "stop_condition")
    assert result.result == "This is the END."


async def test_the_first_true_condition_ends_the_run(polos: Polos, model: ModelServer) -> None:
    looks(model, 3)
    result = await agent_with(max_steps(count=3), executed_tool(tool_names=["e2e_look"])).run(polos, "Go.")
    assert end_of(result) == (1, "stop_condition")


async def test_an_own_condition_may_be_async_and_configured(polos: Polos, model: ModelServer) -> None:
    class Wanted(BaseModel):
        word: str = "1"

    @stop_condition
    async def found(ctx: StopConditionContext, config: Wanted) -> bool:
        return any(config.word in str(result.result) for result in ctx.steps[-1].tool_results)

    looks(model, 3)
    assert end_of(await agent_with(found(word="on 1")).run(polos, "Go.")) == (2, "stop_condition")


async def test_an_own_condition_may_be_given_bare_or_called(polos: Polos, model: ModelServer) -> None:
    @stop_condition
    def at_once(ctx: StopConditionContext) -> bool:
        return ctx.agent_id == "e2e-stops" and bool(ctx.agent_run_id)

    for condition in (at_once, at_once()):
        model.reset()
        looks(model, 2)
        assert end_of(await agent_with(condition).run(polos, "Go.")) == (1, "stop_condition")


async def test_a_condition_that_raises_fails_the_run_and_says_why(polos: Polos, model: ModelServer) -> None:
    @stop_condition
    def broken(ctx: StopConditionContext) -> bool:
        raise KeyError("no such thing")

    looks(model, 2)
    with pytest.raises(RunFailedError, match="no such thing"):
        await agent_with(broken).run(polos, "Go.")


async def test_without_a_condition_the_limit_of_the_settings_ends_the_run(
    polos: Polos, model: ModelServer
) -> None:
    looks(model, LIMIT + 2, text="Still looking.")
    result = await agent_with().run(polos, "Go.")

    assert end_of(result) == (LIMIT, "max_steps")
    assert result.result == "Still looking."
    assert len(result.tool_results) == LIMIT
    assert len(model.requests) == LIMIT


async def test_another_condition_does_not_lift_the_limit(polos: Polos, model: ModelServer) -> None:
    looks(model, LIMIT + 2)
    result = await agent_with(has_text(texts=["never"])).run(polos, "Go.")
    assert end_of(result) == (LIMIT, "max_steps")


async def test_an_answer_without_tool_calls_ends_before_any_condition(
    polos: Polos, model: ModelServer
) -> None:
    asked: list[int] = []

    @stop_condition
    def never_asked(ctx: StopConditionContext) -> bool:
        asked.append(1)
        return True

    model.says("hello")
    assert end_of(await agent_with(never_asked).run(polos, "hi")) == (1, "completed")
    assert asked == []
