"""The six hook points of an agent: what each sees and changes, in which order, and once per run."""

from __future__ import annotations

from typing import Any

import pytest
from backends import on_both
from models.servers import ModelServer
from pydantic import BaseModel
from weather import City, Weather

from polos import Agent, HookContext, HookResult, Polos, WorkflowContext, hook, tool
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(120)


@tool(id="hooked_search", description="Search")
async def search(ctx: WorkflowContext, input: City) -> Weather:
    return Weather(city=input.city, degrees=20)


@tool(id="hooked_slow", description="Ask a person")
async def slow(ctx: WorkflowContext, input: City) -> str:
    answer = await ctx.step.suspend("ok", data={})
    return str(answer["data"]["said"])


def logged(log: list[str], point: str, detail: Any = lambda context: "") -> Any:
    def function(ctx: WorkflowContext, context: HookContext) -> HookResult:
        log.append(f"{point} {detail(context)}".strip())
        return HookResult.continue_with()

    function.__name__ = f"log_{point}"
    return hook(function)


def with_log(name: str, log: list[str], *tools: Any) -> Agent:
    return Agent(
        id=name,
        provider="openai",
        model="gpt-4o",
        tools=list(tools),
        on_start=logged(log, "start", lambda seen: seen.current_payload["prompt"]),
        on_end=[logged(log, "end", lambda seen: seen.current_output.total_steps)],
        on_agent_step_start=logged(log, "step_start", lambda seen: seen.current_payload["step"]),
        on_agent_step_end=[logged(log, "step_end", lambda seen: seen.current_output.step)],
        on_tool_start=logged(log, "tool_start", lambda seen: f"{seen.current_tool} {seen.current_payload}"),
        on_tool_end=logged(log, "tool_end", lambda seen: f"{seen.current_tool} {seen.current_output}"),
    )


async def test_all_points_come_in_order(polos: Polos, model: ModelServer) -> None:
    log: list[str] = []
    agent = with_log("hooked-all", log, search)
    model.calls(("hooked_search", {"city": "Rome"}), ("hooked_search", {"city": "Oslo"}))
    model.says("warm")
    result = await agent.run(polos, "Weather?", session_id="hooked")

    assert result.result == "warm"
    assert log == [
        "start Weather?",
        "step_start 1",
        "tool_start hooked_search {'city': 'Rome'}",
        "tool_start hooked_search {'city': 'Oslo'}",
        "tool_end hooked_search {'city': 'Rome', 'degrees': 20.0}",
        "tool_end hooked_search {'city': 'Oslo', 'degrees': 20.0}",
        "step_end 1",
        "step_start 2",
        "step_end 2",
        "end 2",
    ]


@on_both
async def test_each_hook_runs_once_however_often_the_run_is_replayed(
    polos: Polos, model: ModelServer
) -> None:
    log: list[str] = []
    agent = with_log("hooked-replayed", log, slow)
    model.calls(("hooked_slow", {"city": "Rome"}))
    model.says("done")
    handle = await agent.invoke(polos, {"input": "Go."})
    async for event in polos.follow(handle.id):
        if event.event_type == "suspend_ok":
            break
    await polos.stop()
    await polos.start()
    await polos.resume("hooked-replayed", handle.id, "ok", {"said": "yes"})
    record = await polos.wait(handle.id)

    assert record["status"] == "completed"
    assert len(log) == len(set(log)) == 8
    assert log[3] == "tool_end hooked_slow yes"


async def test_hooks_change_messages_arguments_results_and_steps(polos: Polos, model: ModelServer) -> None:
    seen: list[HookContext] = []

    def louder(ctx: WorkflowContext, context: HookContext) -> HookResult:
        messages = context.current_payload["messages"]
        if context.current_payload["step"] == 1:
            messages = [{"role": "user", "content": messages[0]["content"].upper()}]
        return HookResult.continue_with(modified_payload={"messages": messages})

    async def elsewhere(ctx: WorkflowContext, context: HookContext) -> HookResult:
        seen.append(context)
        return HookResult.continue_with(modified_payload={"city": "Oslo"})

    def warmer(ctx: WorkflowContext, context: HookContext) -> HookResult:
        return HookResult.continue_with(modified_output={"degrees": 99})

    def shorter(ctx: WorkflowContext, context: HookContext) -> HookResult:
        return HookResult.continue_with(modified_output={"content": "short"})

    agent = Agent(
        id="hooked-changes",
        provider="openai",
        model="gpt-4o",
        tools=[search],
        on_agent_step_start=louder,
        on_tool_start=[elsewhere],
        on_tool_end=warmer,
        on_agent_step_end=shorter,
    )
    model.calls(("hooked_search", {"city": "Rome"}))
    model.says("a long answer")
    result = await agent.run(polos, "weather?", user_id="ada")
    first, second = (request.body["input"] for request in model.requests)

    assert [item["content"] for item in first] == ["WEATHER?"]
    assert second[-1]["output"] == '{"city":"Oslo","degrees":99}'
    assert result.tool_results[0].result == Weather(city="Oslo", degrees=99)
    assert result.result == "short"
    [context] = seen
    assert (context.workflow_id, context.user_id, context.steps) == ("hooked-changes", "ada", [])
    assert context.agent_config is not None
    assert context.agent_config.model == "gpt-4o"


async def test_a_hook_at_the_start_changes_the_input(polos: Polos, model: ModelServer) -> None:
    def rewritten(ctx: WorkflowContext, context: HookContext) -> HookResult:
        payload = context.current_payload
        return HookResult.continue_with(
            modified_payload={**payload, "prompt": payload["prompt"] + " Briefly."}
        )

    def whole(ctx: WorkflowContext, context: HookContext) -> HookResult:
        return HookResult.continue_with(modified_output={"result": context.current_output.result + "!"})

    agent = Agent(id="hooked-input", provider="openai", model="gpt-4o", on_start=rewritten, on_end=whole)
    model.says("yes")
    assert (await agent.run(polos, "Is it?")).result == "yes!"
    assert model.requests[-1].body["input"][0]["content"] == "Is it? Briefly."


POINTS = ("on_start", "on_end", "on_agent_step_start", "on_agent_step_end", "on_tool_start", "on_tool_end")


@pytest.mark.parametrize("point", POINTS)
async def test_a_hook_that_refuses_fails_the_run_without_another_attempt(
    polos: Polos, model: ModelServer, point: str
) -> None:
    calls: list[str] = []

    def refuses(ctx: WorkflowContext, context: HookContext) -> HookResult:
        calls.append(point)
        return HookResult.fail("not today")

    options: dict[str, Any] = {point: refuses}
    agent = Agent(id=f"refuses-{point}", provider="openai", model="gpt-4o", tools=[search], **options)
    model.calls(("hooked_search", {"city": "Rome"}))
    model.says("warm")
    with pytest.raises(RunFailedError, match="not today"):
        await agent.run(polos, "Weather?")
    assert calls == [point]


@pytest.mark.parametrize(
    ("point", "result", "problem"),
    [
        ("on_agent_step_start", {"modified_payload": {"messages": "none"}}, "list of message dicts"),
        ("on_agent_step_end", {"modified_output": "text"}, "changed the step to one of no use"),
        ("on_tool_end", None, "must return a HookResult"),
    ],
)
async def test_what_a_hook_may_not_give_is_said(
    polos: Polos, model: ModelServer, point: str, result: Any, problem: str
) -> None:
    def wrong(ctx: WorkflowContext, context: HookContext) -> Any:
        return result if result is None else HookResult.continue_with(**result)

    options: dict[str, Any] = {point: wrong}
    agent = Agent(id=f"wrong-{point}", provider="openai", model="gpt-4o", tools=[search], **options)
    model.calls(("hooked_search", {"city": "Rome"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polos.engine.hooks.RETRIES.max_retries", 0)
        with pytest.raises(RunFailedError, match=problem):
            await agent.run(polos, "Weather?")


async def test_a_tool_that_fails_may_be_mended_by_a_hook(polos: Polos, model: ModelServer) -> None:
    @tool(id="hooked_fails")
    async def fails(ctx: WorkflowContext) -> str:
        raise LookupError("gone")

    def mends(ctx: WorkflowContext, context: HookContext) -> HookResult:
        assert context.current_output == "Error: gone"
        return HookResult.continue_with(modified_output={"fallback": True})

    agent = Agent(id="hooked-mends", provider="openai", model="gpt-4o", tools=[fails], on_tool_end=mends)
    model.calls(("hooked_fails", {}))
    model.says("fine")
    result = await agent.run(polos, "Go.")
    assert result.tool_results[0].result == {"fallback": True}
    assert model.requests[-1].body["input"][-1]["output"] == '{"fallback":true}'


class Odd(BaseModel):
    x: int


@pytest.mark.parametrize("point", POINTS)
def test_hooks_must_be_callable(point: str) -> None:
    options: dict[str, Any] = {point: Odd(x=1)}
    with pytest.raises(TypeError, match=f"{point} has .* not callable"):
        Agent(id="odd-hooks", provider="openai", model="gpt-4o", **options)
