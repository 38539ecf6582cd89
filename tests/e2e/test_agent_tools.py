"""Tool calls of an agent: in parallel, in order, and what becomes of those that go wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backends import on_both
from models.servers import Answer, ModelServer, Recorder, chat_answer
from weather import City, agent, agent_of, call_of

from polos import Agent, AgentResult, Polos, WorkflowContext, tool

pytestmark = pytest.mark.timeout(120)


async def test_tools_of_one_answer_run_at_the_same_time(polos: Polos, model: ModelServer) -> None:
    meeting = asyncio.Barrier(3)

    @tool(id="e2e_meet")
    async def meet(ctx: WorkflowContext, input: City) -> str:
        await asyncio.wait_for(meeting.wait(), 5)
        return input.city

    meets = Agent(id="e2e-meets", provider="openai", model="gpt-4o", tools=[meet])
    model.calls(*(("e2e_meet", {"city": name}) for name in "abc"))
    model.says("met")
    result = await meets.run(polos, "Meet.")
    assert [found.result for found in result.tool_results] == ["a", "b", "c"]


async def test_results_are_in_the_order_of_the_calls_whichever_ends_first(
    polos: Polos, model: ModelServer
) -> None:
    turn = {"a": asyncio.Event(), "b": asyncio.Event()}
    turn["b"].set()

    @tool(id="e2e_ordered")
    async def ordered(ctx: WorkflowContext, input: City) -> str:
        await asyncio.wait_for(turn[input.city].wait(), 5)
        turn["a"].set()
        return input.city

    orders = Agent(id="e2e-orders", provider="openai", model="gpt-4o", tools=[ordered])
    model.calls(("e2e_ordered", {"city": "a"}), ("e2e_ordered", {"city": "b"}))
    model.says("done")
    assert [found.result for found in (await orders.run(polos, "Go.")).tool_results] == ["a", "b"]


@on_both
async def test_what_goes_wrong_with_a_tool_call_goes_back_to_the_model(
    polos: Polos, model: ModelServer
) -> None:
    model.calls(
        ("e2e_weather", {"city": "Atlantis"}),
        ("e2e_weather", {"town": "Paris"}),
        ("nothing_like_it", {}),
        ("e2e_weather", {"city": "Paris"}),
    )
    model.says("Paris is mild.")
    result = await agent.run(polos, "Weather?")
    raised, unfit, unknown, fine = result.tool_results

    assert result.result == "Paris is mild."
    assert (raised.status, raised.error, raised.result) == ("failed", "no such city", "Error: no such city")
    assert unfit.status == "failed"
    assert "city: Field required" in str(unfit.error)
    assert (unknown.status, unknown.tool_name) == ("failed", "nothing_like_it")
    assert "'nothing_like_it' not found" in str(unknown.error)
    assert fine.status == "completed"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ('{"city"', "not valid JSON"),
        ('["Paris"]', "must be a JSON object, not list"),
        ('{"city": ' + "[" * 300 + "]" * 300 + "}", "nested deeper than the 200 levels"),
        ('{"city": NaN}', "NaN is no JSON number"),
    ],
    ids=["no JSON", "no object", "too deep", "no number"],
)
async def test_arguments_that_are_no_json_object_go_back_to_the_model(
    polos: Polos, told: Recorder, arguments: str, problem: str
) -> None:
    told.answers(
        Answer(chat_answer(calls=[call_of("e2e_weather", arguments)])), Answer(chat_answer("Sorry."))
    )
    result = await agent_of(told).run(polos, "Weather?")

    assert result.tool_results[0].status == "failed"
    assert problem in str(result.tool_results[0].error)
    assert result.result == "Sorry."


async def test_an_empty_answer_is_asked_for_again(polos: Polos, told: Recorder) -> None:
    told.answers(Answer(chat_answer(None)), Answer(chat_answer("There.")))
    assert (await agent_of(told).run(polos, "hi")).result == "There."


async def test_a_tool_is_called_once_even_when_it_fails(polos: Polos, model: ModelServer) -> None:
    calls: list[int] = []

    @tool(id="e2e_fails_once")
    async def fails(ctx: WorkflowContext) -> str:
        calls.append(ctx.retry_count)
        raise ConnectionError("away")

    caller = Agent(id="e2e-fails-once", provider="openai", model="gpt-4o", tools=[fails])
    model.calls(("e2e_fails_once", {}))
    model.says("It is away.")
    await caller.run(polos, "Try.")
    assert calls == [0]


async def test_a_tool_may_be_a_sync_function_without_input(polos: Polos, model: ModelServer) -> None:
    @tool(id="e2e_sync_tool")
    def sync_tool(ctx: WorkflowContext) -> dict[str, Any]:
        return {"type": ctx.workflow_type, "id": ctx.workflow_id}

    caller = Agent(id="e2e-sync-tool", provider="openai", model="gpt-4o", tools=[sync_tool])
    model.calls(("e2e_sync_tool", {}))
    model.says("done")
    [found] = (await caller.run(polos, "Go.")).tool_results
    assert found.result == {"type": "tool", "id": "e2e_sync_tool"}


async def test_what_a_tool_returns_must_be_json(polos: Polos, model: ModelServer) -> None:
    @tool(id="e2e_junk")
    async def junk(ctx: WorkflowContext) -> Any:
        return {"stream": object()}

    caller = Agent(id="e2e-junk", provider="openai", model="gpt-4o", tools=[junk])
    model.calls(("e2e_junk", {}))
    model.says("It is broken.")
    result = await caller.run(polos, "Go.")

    assert result.tool_results[0].status == "failed"
    assert "result of tool 'e2e_junk'" in str(result.tool_results[0].error)
    assert "object at ['stream']" in str(result.tool_results[0].error)
    assert result.result == "It is broken."


async def test_a_tool_may_use_steps_and_run_another_agent(polos: Polos, model: ModelServer) -> None:
    writer = Agent(id="e2e-writer", provider="openai", model="gpt-4o-mini")

    @tool(id="e2e_delegate")
    async def delegate(ctx: WorkflowContext, input: City) -> str:
        city = await ctx.step.run("upper", input.city.upper)
        answer: AgentResult = await ctx.step.agent_invoke_and_wait("write", writer.with_input(f"On {city}"))
        return f"{answer.result} ({city})"

    boss = Agent(id="e2e-boss", provider="openai", model="gpt-4o", tools=[delegate])
    model.calls(("e2e_delegate", {"city": "Rome"}))
    model.says("A poem.")
    model.says("There it is.")
    result = await boss.run(polos, "Write.")

    assert result.tool_results[0].result == "A poem. (ROME)"
    assert result.result == "There it is."


async def test_an_agents_own_tool_is_used_although_another_has_its_name(
    polos: Polos, model: ModelServer
) -> None:
    def agent_finding(name: str) -> Agent:
        @tool(id="e2e_search")
        async def search(ctx: WorkflowContext) -> str:
            return name

        return Agent(id=f"e2e-{name}", provider="openai", model="gpt-4o", tools=[search])

    agents = [agent_finding(name) for name in ("first", "second")]
    for own, name in zip(agents, ("first", "second"), strict=True):
        model.calls(("e2e_search", {}))
        model.says("found")
        assert [found.result for found in (await own.run(polos, "Go.")).tool_results] == [name]
