"""Guardrails: what passes, what is changed everywhere, and what is made again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backends import on_both
from models.servers import ModelServer
from weather import City

from polos import (
    Agent,
    GuardrailContext,
    GuardrailResult,
    Polos,
    ToolCall,
    ToolCallFunction,
    WorkflowContext,
    guardrail,
    tool,
    workflow,
)
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(120)


@tool(id="guarded_search", description="Search")
async def search(ctx: WorkflowContext, input: City) -> str:
    return f"{input.city} is sunny"


@guardrail
def redact(ctx: WorkflowContext, context: GuardrailContext) -> GuardrailResult:
    text = context.content or ""
    return GuardrailResult.continue_with(modified_content=text.replace("ada@example.com", "[EMAIL REDACTED]"))


@guardrail()
async def no_blocked(ctx: WorkflowContext, context: GuardrailContext) -> GuardrailResult:
    if "blocked" in str(context.content):
        return GuardrailResult.fail("it has a blocked phrase")
    return GuardrailResult.continue_with()


def guarded(name: str, *guardrails: Any, **options: Any) -> Agent:
    return Agent(id=name, provider="openai", model="gpt-4o", guardrails=list(guardrails), **options)


@on_both
async def test_a_changed_text_replaces_the_model_s_everywhere(polos: Polos, model: ModelServer) -> None:
    agent = guarded("guarded-redacts", redact, tools=[search])
    model.calls(("guarded_search", {"city": "Rome"}), text="I ask for ada@example.com")
    model.says("Write to ada@example.com")
    stream = await agent.stream(polos, "Whom do I ask?")
    events = [event async for event in stream.events]
    late = [event async for event in polos.follow(stream.id)]
    result = await stream.result()
    texts = [event.data["content"] for event in events if event.event_type == "text_delta"]

    assert result.result == "Write to [EMAIL REDACTED]"
    assert texts == ["I ask for [EMAIL REDACTED]", "Write to [EMAIL REDACTED]"]
    assert await stream.text() == "".join(texts)
    for told in (events, late, [await polos.get_execution(stream.id)]):
        shown = json.dumps([event if isinstance(event, dict) else event.data for event in told])
        assert "ada@example.com" not in shown
    assert "ada@example.com" not in json.dumps(model.requests[-1].body)
    assert "[EMAIL REDACTED]" in json.dumps(model.requests[-1].body)


async def test_the_one_delta_has_the_place_programs_expect(polos: Polos, model: ModelServer) -> None:
    agent = guarded("guarded-delta", redact)
    model.says("one two three four five six")
    stream = await agent.stream(polos, "Count.")
    events = [event async for event in stream.events]
    [delta] = [event for event in events if event.event_type == "text_delta"]

    assert (delta.data["content"], delta.data["chunk_index"]) == ("one two three four five six", 1)
    kinds = [event.event_type for event in events]
    assert kinds.index("stream_start") < kinds.index("text_delta") < kinds.index("agent_finish")


@on_both
async def test_a_refused_answer_is_made_again_with_the_reason(polos: Polos, model: ModelServer) -> None:
    agent = guarded("guarded-again", no_blocked, tools=[search])
    model.says("a blocked phrase")
    model.calls(("guarded_search", {"city": "Rome"}))
    model.says("fine")
    result = await agent.run(polos, "Say it.")
    again, last = (request.body["input"] for request in model.requests[1:])

    assert (result.result, result.total_steps) == ("fine", 2)
    assert "blocked phrase" in json.dumps(again[1])
    assert "it has a blocked phrase" in again[2]["content"]
    assert [item.get("type", item.get("role")) for item in last] == [
        "user",
        "function_call",
        "function_call_output",
    ]
    assert result.usage.total_tokens > 0


async def test_an_answer_that_never_passes_fails_the_run_once(polos: Polos, model: ModelServer) -> None:
    agent = guarded("guarded-never", no_blocked, guardrail_max_retries=1)
    model.says("blocked", times=None)
    stream = await agent.stream(polos, "Say it.")
    with pytest.raises(RunFailedError, match="Guardrail failed after 1 retries: it has a blocked phrase"):
        await stream.result()
    assert len(model.requests) == 2
    assert "text_delta" not in [event.event_type async for event in polos.follow(stream.id)]


async def test_a_sentence_is_judged_by_the_agent_s_model(polos: Polos, model: ModelServer) -> None:
    agent = guarded(
        "guarded-judged",
        "The answer must not contain legal advice.",
        system_prompt="You are a lawyer.",
        tools=[search],
    )
    model.calls(("guarded_search", {"city": "Rome"}))  # without text: nothing to judge
    model.says("Sue them.")
    model.says('{"passed": false, "reason": "It is legal advice."}')
    model.says("Ask a lawyer.")
    model.says('{"passed": true, "reason": "Fine."}')
    result = await agent.run(polos, "What now?")
    bodies = [request.body for request in model.requests]
    judge = bodies[2]

    assert result.result == "Ask a lawyer."
    assert "must not contain legal advice" in judge["input"][0]["content"]
    assert "Sue them." in judge["input"][0]["content"]
    assert "lawyer" not in judge["instructions"]
    assert not judge.get("tools")
    assert judge["temperature"] == 0
    assert judge["text"]["format"]["name"] == "Verdict"
    assert "It is legal advice." in bodies[3]["input"][-1]["content"]
    assert "What now?" in json.dumps(bodies[3])


async def test_a_verdict_that_cannot_be_read_is_a_refusal(polos: Polos, model: ModelServer) -> None:
    agent = guarded("guarded-unread", "Be kind.", guardrail_max_retries=0)
    model.says("hello")
    model.says("it depends")
    with pytest.raises(RunFailedError, match="gave no verdict that can be read"):
        await agent.run(polos, "Hi")


async def test_guardrails_see_what_those_before_them_made_and_may_drop_calls(
    polos: Polos, model: ModelServer
) -> None:
    seen: list[GuardrailContext] = []

    def first(ctx: WorkflowContext, context: GuardrailContext) -> GuardrailResult:
        kept = [call for call in context.tool_calls or [] if "Rome" in call.function.arguments]
        return GuardrailResult.continue_with(modified_content="changed", modified_tool_calls=kept)

    def second(ctx: WorkflowContext, context: GuardrailContext) -> GuardrailResult:
        seen.append(context)
        return GuardrailResult.continue_with()

    agent = guarded("guarded-calls", first, second, tools=[search])
    model.calls(("guarded_search", {"city": "Rome"}), ("guarded_search", {"city": "Oslo"}), text="both")
    model.says("end")
    result = await agent.run(polos, "Go.", session_id="s-1", user_id="ada")

    assert [found.result for found in result.tool_results] == ["Rome is sunny"]
    assert seen[0].content == "changed"
    assert [call.function.name for call in seen[0].tool_calls or []] == ["guarded_search"]
    assert (seen[0].session_id, seen[0].user_id) == ("s-1", "ada")
    assert (seen[0].agent_workflow_id, seen[0].agent_run_id) == ("guarded-calls", result.agent_run_id)
    assert [len(context.steps) for context in seen] == [0, 1]


async def test_another_config_is_used_when_the_answer_is_made_again(polos: Polos, model: ModelServer) -> None:
    def colder(ctx: WorkflowContext, context: GuardrailContext) -> GuardrailResult:
        temperature = context.llm_config.temperature or 0.0
        if temperature < 0.2:
            return GuardrailResult.continue_with()
        config = context.llm_config.model_copy(update={"temperature": round(temperature - 0.4, 1)})
        return GuardrailResult.fail("too wild").model_copy(update={"modified_llm_config": config})

    agent = guarded("guarded-config", colder, temperature=0.9)
    for text in ("wild", "wild", "ok"):
        model.says(text)
    await agent.run(polos, "Go.")
    assert [request.body["temperature"] for request in model.requests] == [0.9, 0.5, 0.1]


async def test_calls_that_a_guardrail_writes_itself_stand_before_their_results(
    polos: Polos, model: ModelServer
) -> None:
    def function(city: str) -> ToolCallFunction:
        return ToolCallFunction(name="guarded_search", arguments=json.dumps({"city": city}))

    def rewrites(ctx: WorkflowContext, context: GuardrailContext) -> GuardrailResult:
        if not context.tool_calls:
            return GuardrailResult.continue_with()
        kept = [ToolCall(id=call.id, function=function("Paris")) for call in context.tool_calls]
        added = [ToolCall(id="", function=function("Oslo")), ToolCall(id="mine", function=function("Bonn"))]
        return GuardrailResult.continue_with(modified_tool_calls=kept + added)

    agent = guarded("guarded-writes", rewrites, tools=[search])
    model.calls(("guarded_search", {"city": "Rome"}), text="I look.")
    model.says("end")
    result = await agent.run(polos, "Go.")
    items = model.requests[-1].body["input"][2:]
    calls, outputs = items[:3], items[3:]

    assert [json.loads(call["arguments"])["city"] for call in calls] == ["Paris", "Oslo", "Bonn"]
    assert [output["output"] for output in outputs] == [
        json.dumps(f"{city} is sunny") for city in ("Paris", "Oslo", "Bonn")
    ]
    assert [call["call_id"] for call in calls] == [output["call_id"] for output in outputs]
    assert len({call["call_id"] for call in calls}) == len(calls) == len(result.tool_results)


async def test_verdicts_are_recorded(polos: Polos, model: ModelServer) -> None:
    """The run is replayed by another worker after the guardrail has passed the call of a tool."""
    calls: list[Any] = []

    @tool(id="guarded_waits")
    async def waits(ctx: WorkflowContext) -> str:
        return str((await ctx.step.suspend("ok", data={}))["data"]["said"])

    def counting(ctx: WorkflowContext, context: GuardrailContext) -> GuardrailResult:
        calls.append(context.content)
        return GuardrailResult.continue_with(modified_content="seen")

    agent = guarded("guarded-replayed", counting, tools=[waits])
    model.calls(("guarded_waits", {}), text="first")
    model.says("second")
    handle = await agent.invoke(polos, {"input": "Go.", "streaming": True})
    async for event in polos.follow(handle.id):
        if event.event_type == "suspend_ok":
            break
    await polos.stop()
    await polos.start()
    await polos.resume("guarded-replayed", handle.id, "ok", {"said": "yes"})
    record = await polos.wait(handle.id)
    assert (record["status"], record["result"]["result"]) == ("completed", "seen")
    assert calls == ["first", "second"]


@workflow(id="guarded-parent")
async def parent(ctx: WorkflowContext) -> str:
    agent = guarded("guarded-child", redact)
    answer = await ctx.step.agent_invoke_and_wait("ask", agent.with_input("Whom?", streaming=True))
    return str(answer.result)


@on_both
async def test_an_agent_below_a_workflow_is_told_in_the_order_of_its_tree(
    polos: Polos, model: ModelServer
) -> None:
    guarded("guarded-child", redact)
    model.says("Write to ada@example.com")
    handle = await parent.invoke(polos)
    live = [(event.event_type, event.data) async for event in polos.follow(handle.id)]
    late = [(event.event_type, event.data) async for event in polos.follow(handle.id)]
    kinds = [kind for kind, _ in live]

    assert live[-1][1]["result"] == "Write to [EMAIL REDACTED]"
    assert [data["content"] for kind, data in late if kind == "text_delta"] == ["Write to [EMAIL REDACTED]"]
    assert kinds.index("text_delta") < kinds.index("agent_finish") < kinds.index("workflow_finish")
    assert "ada@example.com" not in json.dumps([live, late])


@pytest.mark.parametrize("wrong", [3, "", "  ", [None, {}]])
def test_what_is_no_guardrail_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="guardrails has"):
        Agent(id="odd-guardrails", provider="openai", model="gpt-4o", guardrails=wrong)


def test_a_guardrail_takes_two_arguments() -> None:
    with pytest.raises(TypeError, match=r"must take \(ctx, guardrail_context\)"):
        guardrail(lambda ctx: None)
