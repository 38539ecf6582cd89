"""Agents from start to end: answers, tools in parallel, what goes over the wire, how runs end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backends import on_both
from models.servers import Answer, ModelServer, Recorder, chat_answer
from pydantic import BaseModel

from polos import (
    Agent,
    AgentResult,
    Polos,
    WorkflowContext,
    batch_agent_invoke,
    tool,
    workflow,
)
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(30)


class City(BaseModel):
    city: str


class Weather(BaseModel):
    city: str
    degrees: float


@tool(id="e2e_weather", description="The weather in a city")
async def weather(ctx: WorkflowContext, input: City) -> Weather:
    if input.city == "Atlantis":
        raise LookupError("no such city")
    return Weather(city=input.city, degrees=21.5)


agent = Agent(
    id="e2e-agent",
    provider="openai",
    model="gpt-4o",
    system_prompt="You are helpful.",
    tools=[weather],
    temperature=0.3,
    max_output_tokens=200,
)


def agent_of(told: Recorder) -> Agent:
    return Agent(
        id="e2e-told",
        provider="openai",
        model="gpt-4o",
        tools=[weather],
        provider_base_url=told.url,
        provider_llm_api="chat_completions",
    )


def call_of(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


@on_both
async def test_an_agent_calls_its_tools_and_answers(polos: Polos, model: ModelServer) -> None:
    model.calls(("e2e_weather", {"city": "Paris"}), ("e2e_weather", {"city": "London"}))
    model.says("Both are mild.")
    result = await agent.run(polos, "Compare Paris and London.")

    assert isinstance(result, AgentResult)
    assert (result.result, result.total_steps, result.stop_reason) == ("Both are mild.", 2, "completed")
    assert [found.tool_name for found in result.tool_results] == ["e2e_weather", "e2e_weather"]
    assert [found.result for found in result.tool_results] == [
        Weather(city="Paris", degrees=21.5),
        Weather(city="London", degrees=21.5),
    ]
    assert {found.status for found in result.tool_results} == {"completed"}
    assert (result["result"], result.get("nothing", 1), "usage" in result) == ("Both are mild.", 1, True)


async def test_usage_is_the_sum_of_all_model_calls(polos: Polos, told: Recorder) -> None:
    told.answers(
        Answer(chat_answer(calls=[call_of("e2e_weather", '{"city": "Paris"}')])), Answer(chat_answer("Mild."))
    )
    handle = await agent_of(told).invoke(polos, {"input": "Paris?"})
    record = await polos.wait(handle.id)
    usage = (await handle.get(polos))["result"].usage

    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (22, 14, 36)
    assert record["usage"] == {"input_tokens": 22, "output_tokens": 14, "total_tokens": 36}


async def test_the_run_id_of_the_result_is_that_of_the_run(polos: Polos, model: ModelServer) -> None:
    model.says("hello")
    handle = await agent.invoke(polos, {"input": "hi"})
    await polos.wait(handle.id)
    assert (await handle.get(polos))["result"].agent_run_id == handle.id


# -- the wire


async def test_what_the_agent_is_made_of_reaches_the_provider(polos: Polos, model: ModelServer) -> None:
    model.says("hello")
    await agent.run(polos, "What is up?")
    body = model.requests[-1].body

    assert body["model"] == "gpt-4o"
    assert body["temperature"] == 0.3
    assert body["max_output_tokens"] == 200
    assert "You are helpful." in str(body)
    assert "What is up?" in str(body["input"])
    assert body["tools"][0]["name"] == "e2e_weather"
    assert body["tools"][0]["parameters"]["required"] == ["city"]


async def test_further_keywords_of_run_reach_the_provider_in_every_call(
    polos: Polos, model: ModelServer
) -> None:
    model.calls(("e2e_weather", {"city": "Paris"}))
    model.says("Mild.")
    await agent.run(polos, "Paris?", temperature=0.7, top_p=0.9)

    assert [(call.body["temperature"], call.body["top_p"]) for call in model.requests] == [(0.7, 0.9)] * 2


async def test_keywords_of_with_input_reach_the_provider(polos: Polos, model: ModelServer) -> None:
    model.says("hello")
    config = agent.with_input("hi", temperature=0.1, provider_kwargs={"top_p": 0.5})
    [handle] = await batch_agent_invoke(polos, [config])
    await polos.wait(handle.id)

    body = model.requests[-1].body
    assert (body["temperature"], body["top_p"]) == (0.1, 0.5)


async def test_a_conversation_may_be_given_as_messages(polos: Polos, model: ModelServer) -> None:
    model.says("You are Ada.")
    await agent.run(
        polos,
        [
            {"role": "user", "content": "I am Ada."},
            {"role": "assistant", "content": "Hello Ada."},
            {"role": "user", "content": "Who am I?"},
        ],
    )
    assert [(item["role"], "Ada" in str(item)) for item in model.requests[-1].body["input"][-3:]] == [
        ("user", True),
        ("assistant", True),
        ("user", False),
    ]


async def test_the_second_call_carries_the_question_the_calls_and_their_outputs(
    polos: Polos, model: ModelServer
) -> None:
    model.calls(("e2e_weather", {"city": "Paris"}), ("e2e_weather", {"city": "Atlantis"}))
    model.says("Only Paris exists.")
    await agent.run(polos, "Compare.")
    items = model.requests[-1].body["input"]

    kinds = [item.get("type") or item.get("role") for item in items]
    assert kinds[-5:] == [
        "user",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
    ] or (kinds[-4:] == ["function_call", "function_call", "function_call_output", "function_call_output"])
    outputs = {
        item["call_id"]: item["output"] for item in items if item.get("type") == "function_call_output"
    }
    calls = [item["call_id"] for item in items if item.get("type") == "function_call"]
    assert list(outputs) == calls
    assert '"degrees":21.5' in outputs[calls[0]]
    assert outputs[calls[1]] == "Error: no such city"


# -- tools


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
    [('{"city"', "not valid JSON"), ('["Paris"]', "must be a JSON object, not list")],
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


# -- how runs end


async def test_a_provider_that_refuses_fails_the_run_at_once_with_advice(
    polos: Polos, model: ModelServer
) -> None:
    model.fails(401, times=None)
    with pytest.raises(RunFailedError, match=r"HTTP 401.*OPENAI_API_KEY"):
        await agent.run(polos, "hi")
    assert len(model.requests) == 1


async def test_a_provider_that_is_busy_is_asked_again(polos: Polos, model: ModelServer) -> None:
    model.fails(429, retry_after=0.05)
    model.fails(503)
    model.says("hello")
    assert (await agent.run(polos, "hi")).result == "hello"
    assert [call.status for call in model.requests] == [429, 503, 200]


async def test_a_provider_that_stays_busy_fails_the_run_without_another_attempt(
    polos: Polos, model: ModelServer
) -> None:
    model.fails(500, times=None)
    handle = await agent.invoke(polos, {"input": "hi"})
    record = await polos.wait(handle.id, timeout_seconds=10)

    assert (record["status"], record["retry_count"]) == ("failed", 0)
    assert "HTTP 500" in record["error"]
    assert "after 5 attempts" in record["error"]
    assert len(model.requests) == 5


# -- from workflows


@on_both
async def test_a_workflow_gets_the_result_of_an_agent(polos: Polos, model: ModelServer) -> None:
    @workflow(id="e2e-support")
    async def support(ctx: WorkflowContext, payload: City) -> AgentResult:
        answer: AgentResult = await ctx.step.agent_invoke_and_wait(
            "ask", agent.with_input(f"Weather in {payload.city}?", temperature=0.9)
        )
        await ctx.step.run("log", lambda: answer)
        return answer

    model.calls(("e2e_weather", {"city": "Oslo"}))
    model.says("Mild.")
    result = await support.run(polos, City(city="Oslo"), session_id="s", user_id="u")

    assert isinstance(result, AgentResult)
    assert result.result == "Mild."
    assert model.requests[-1].body["temperature"] == 0.9
    record = await polos.get_execution(result.agent_run_id)
    assert (record["session_id"], record["user_id"], record["step_key"]) == ("s", "u", "ask")


async def test_with_input_may_name_a_session_of_its_own(polos: Polos, model: ModelServer) -> None:
    @workflow(id="e2e-own-session")
    async def asks(ctx: WorkflowContext) -> list[str | None]:
        handle = await ctx.step.agent_invoke("ask", agent.with_input("hi", session_id="own", user_id="her"))
        return [handle.id, handle.session_id, handle.user_id]

    model.says("hello")
    run_id, session, user = await asks.run(polos, session_id="s", user_id="u")
    record = await polos.wait(run_id)
    assert (record["session_id"], record["user_id"]) == ("own", "her") == (session, user)


async def test_a_failed_agent_fails_the_step_of_the_workflow(polos: Polos, model: ModelServer) -> None:
    @workflow(id="e2e-failed-agent")
    async def asks(ctx: WorkflowContext) -> None:
        await ctx.step.agent_invoke_and_wait("ask", agent.with_input("hi"))

    model.fails(400, times=None)
    with pytest.raises(RunFailedError, match="HTTP 400"):
        await asks.run(polos)


async def test_a_step_that_is_given_no_agent_says_what_it_wants(polos: Polos) -> None:
    @workflow(id="e2e-no-agent")
    async def asks(ctx: WorkflowContext) -> None:
        await ctx.step.agent_invoke_and_wait("ask", agent)

    with pytest.raises(RunFailedError, match=r"'ask' needs what agent.with_input\(...\) returns, not Agent"):
        await asks.run(polos)


async def test_a_batch_of_agents_runs_each_in_its_own_session(polos: Polos, model: ModelServer) -> None:
    model.says("hello", times=2)
    handles = await batch_agent_invoke(
        polos, [agent.with_input("a", session_id="one"), agent.with_input("b", user_id="her")]
    )
    records = [await polos.wait(handle.id) for handle in handles]

    assert [record["result"]["result"] for record in records] == ["hello", "hello"]
    assert [record["payload"]["input"] for record in records] == ["a", "b"]
    assert records[0]["session_id"] == "one" != records[1]["session_id"]
    assert [record["user_id"] for record in records] == [None, "her"]
