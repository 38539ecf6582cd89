"""Agents from start to end: answers, tools in parallel, what goes over the wire, how runs end."""

from __future__ import annotations

import pytest
from backends import on_both
from models.servers import Answer, ModelServer, Recorder, chat_answer
from weather import City, Weather, agent, agent_of, call_of

from polos import (
    AgentResult,
    Polos,
    WorkflowContext,
    batch_agent_invoke,
    workflow,
)
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(120)


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
    cost = record["usage"].pop("cost")
    assert cost == pytest.approx(usage.cost)
    assert cost > 0.0
    assert record["usage"] == {
        "input_tokens": 22,
        "output_tokens": 14,
        "total_tokens": 36,
        "cached_tokens": 0,
        "calls": 2,
        "unpriced_calls": 0,
    }


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


@pytest.mark.parametrize("call", ["run", "run without a client", "invoke", "batch"])
async def test_starting_agents_past_the_journal_is_refused_inside_a_run(polos: Polos, call: str) -> None:
    @workflow(id="e2e-agent-past-journal")
    async def past(ctx: WorkflowContext) -> str:
        try:
            match call:
                case "run":
                    await agent.run(polos, "hi")
                case "run without a client":
                    await agent.run("hi")
                case "invoke":
                    await agent.invoke(polos, {"input": "hi"})
                case _:
                    await batch_agent_invoke(polos, [agent.with_input("hi")])
        except RuntimeError as error:
            return str(error)
        return "?"

    assert "ctx.step.agent_invoke_and_wait" in await past.run(polos)
