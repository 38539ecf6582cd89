"""Runs in memory: agents and workflows end as they do on a fleet."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool, workflow
from polos.errors import RunFailedError
from polos.model_limits import parse_limits
from polos.testing import (
    MovableClock,
    ScriptedModel,
    answer,
    approve,
    call_every_tool,
    error,
    next_question,
    reject,
    runtime,
    tool_call,
)

pytestmark = pytest.mark.timeout(120)


class Place(BaseModel):
    city: str


@tool(id="testing-weather", description="Get the weather of a city")
async def get_weather(ctx: WorkflowContext, place: Place) -> str:
    return f"sunny in {place.city}"


weather_agent = Agent(
    id="testing-weather-agent",
    provider="openai",
    model="gpt-4o",
    system_prompt="Be short.",
    tools=[get_weather],
)


async def test_an_agent_is_answered_by_its_script() -> None:
    model = ScriptedModel([tool_call("testing-weather", city="Paris"), "It is sunny."])
    async with runtime(model=model) as client:
        response = await weather_agent.run(client, "How is the weather in Paris?")

    assert response.result == "It is sunny."
    assert response.total_steps == 2
    assert [call.messages[-1]["type"] for call in model.calls[1:]] == ["function_call_output"]
    assert "sunny in Paris" in model.calls[1].messages[-1]["output"]


def test_sync_forms_do_the_same() -> None:
    with runtime(model=["Hello."]) as client:
        assert weather_agent.run_sync(client, "Hi").result == "Hello."


async def test_a_pause_before_another_try_passes_with_the_clock() -> None:
    clock = MovableClock()
    async with runtime(model=[error(429, retry_after_seconds=3600), "At last."], clock=clock) as client:
        handle = await client.invoke("testing-weather-agent", {"input": "Hi"})
        before = clock.now()
        await clock.advance(hours=2)
        record = await client.wait(handle.id, timeout_seconds=30)

    assert record["status"] == "completed", record
    assert (clock.now() - before).total_seconds() >= 7200


async def test_a_script_that_has_ended_fails_the_run_and_says_so() -> None:
    async with runtime(model=[]) as client:
        with pytest.raises(RunFailedError, match="no answer for call 1"):
            await weather_agent.run(client, "Hi")


@workflow(id="testing-three-hours")
async def three_hours(ctx: WorkflowContext) -> list[int]:
    moments = []
    for number in range(3):
        await ctx.step.wait_for(f"hour {number}", hours=1)
        moments.append(await ctx.step.now(f"now {number}"))
    return moments


async def test_each_timer_ends_at_its_own_moment() -> None:
    clock = MovableClock()
    async with runtime(clock=clock) as client:
        handle = await three_hours.invoke(client)
        began = clock.time() * 1000
        await clock.advance(hours=3, seconds=1)
        record = await client.get_execution(handle.id)

    assert record["status"] == "completed"
    hours = [round((moment - began) / 3_600_000, 2) for moment in record["result"]]
    assert hours == [1.0, 2.0, 3.0]


async def test_limits_of_models_are_kept_by_the_clock() -> None:
    clock, model = MovableClock(), ScriptedModel(lambda request: "Hello.")
    limits = {"model_limits": parse_limits("openai/gpt-4o=1rpm")}
    async with runtime(model, clock=clock, **limits) as client:
        runs = [await client.invoke("testing-weather-agent", {"input": "Hi"}) for _ in range(3)]
        await clock.advance(seconds=30)
        assert len(model.calls) == 1
        await clock.advance(seconds=150)
        ended = [await client.get_execution(run.id) for run in runs]

    assert [record["status"] for record in ended] == ["completed"] * 3


async def test_a_model_that_calls_every_tool_tries_an_agent_out() -> None:
    async with runtime(model=call_every_tool()) as client:
        response = await weather_agent.run(client, "Hi")

    assert (response.result, response.tool_results[0].result) == ("Done.", "sunny in text")


class Report(BaseModel):
    city: str
    degrees: int


report_agent = Agent(id="testing-report", provider="openai", model="gpt-4o", output_schema=Report)


async def test_structured_output_is_written_as_data() -> None:
    async with runtime(model=[Report(city="Paris", degrees=20)]) as client:
        assert (await report_agent.run(client, "Hi")).result == Report(city="Paris", degrees=20)


async def test_a_stream_has_the_chunks_of_the_script() -> None:
    async with runtime(model=[answer(chunks=["It ", "is ", "sunny."])]) as client:
        stream = await weather_agent.stream(client, "Hi")
        assert [piece async for piece in stream.text_chunks] == ["It ", "is ", "sunny."]
        assert (await stream.result()).result == "It is sunny."


@tool(id="testing-delete", description="Delete a file", approval="always")
async def delete_file(ctx: WorkflowContext, place: Place) -> str:
    return "deleted"


careful_agent = Agent(id="testing-careful", provider="openai", model="gpt-4o", tools=[delete_file])


async def test_a_person_approves_one_call_and_rejects_another() -> None:
    model = ScriptedModel(
        [tool_call("testing-delete", city="a"), tool_call("testing-delete", city="b"), "Ok."]
    )
    async with runtime(model) as client:
        run = await client.invoke("testing-careful", {"input": "Delete both."})
        asked = await approve(client, run)
        await reject(client, run, "Keep it.")
        record = await client.wait(run.id, timeout_seconds=30)
        with pytest.raises(AssertionError, match=r"asks nothing: it has ended, completed"):
            await next_question(client, run)

    assert asked.data["_form"]["context"] == {"tool": "testing-delete", "input": {"city": "a"}}
    assert record["result"]["result"] == "Ok."
    outputs = [item["output"] for item in model.calls[2].messages if "output" in item]
    assert ("deleted" in outputs[0], "Keep it." in outputs[1]) == (True, True)


@workflow(id="testing-parent")
async def parent(ctx: WorkflowContext, payload: dict[str, Any]) -> list[str]:
    answers = await asyncio.gather(
        *(
            ctx.step.agent_invoke_and_wait(f"ask {city}", weather_agent.with_input(city))
            for city in payload["cities"]
        )
    )
    return [str(each.result) for each in answers]


async def test_runs_start_runs_and_all_see_one_model() -> None:
    def script(request: Any) -> str:
        return f"{request.messages[-1]['content']} is fine"

    async with runtime(model=script) as client:
        assert await parent.run(client, {"cities": ["Oslo", "Rome"]}) == ["Oslo is fine", "Rome is fine"]


async def test_a_test_may_hold_a_run_up_with_what_is_on_its_own_loop() -> None:
    """Runs are executed on the loop of the test, and see its objects."""
    reached, may_go_on = asyncio.Event(), asyncio.Event()

    async def script(request: Any) -> str:
        reached.set()
        await may_go_on.wait()
        return "Hello."

    async with runtime(model=script) as client:
        run = await client.invoke("testing-weather-agent", {"input": "Hi"})
        await asyncio.wait_for(reached.wait(), 20)
        assert (await client.get_execution(run.id))["status"] == "running"
        may_go_on.set()
        assert (await client.wait(run.id, timeout_seconds=20))["status"] == "completed"


async def test_a_run_is_cancelled_in_the_middle_of_a_model_call() -> None:
    reached, ended = asyncio.Event(), asyncio.Event()

    async def script(request: Any) -> str:
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    async with runtime(model=script) as client:
        run = await client.invoke("testing-weather-agent", {"input": "Hi"})
        await asyncio.wait_for(reached.wait(), 20)
        assert await client.cancel_execution(run.id)
        assert (await client.wait(run.id, timeout_seconds=20))["status"] == "cancelled"
        await asyncio.wait_for(ended.wait(), 20)


async def test_calls_without_a_client_use_the_runtime_that_was_opened_last() -> None:
    async with runtime(model=["first"]):
        async with runtime(model=["second"]):
            assert (await weather_agent.run("Hi")).result == "second"
        assert (await weather_agent.run("Hi")).result == "first"


async def test_runtimes_are_strangers() -> None:
    async with runtime(model=["one"]) as first, runtime(model=["two"]) as second:
        run = await first.invoke("testing-weather-agent", {"input": "Hi"})
        assert (await weather_agent.run(second, "Hi")).result == "two"
        assert (await first.wait(run.id, timeout_seconds=20))["result"]["result"] == "one"
        with pytest.raises(ValueError, match="There is no run"):
            await second.get_execution(run.id)


async def test_what_is_defined_later_is_served_too() -> None:
    async with runtime() as client:

        @workflow(id="testing-late")
        async def late(ctx: WorkflowContext) -> str:
            return "here"

        assert await late.run(client) == "here"


async def test_nothing_goes_on_after_the_end() -> None:
    before = asyncio.all_tasks()
    stopped = asyncio.Event()

    async def script(request: Any) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return ""

    async with runtime(model=script) as client:
        await client.invoke("testing-weather-agent", {"input": "Hi"})
        await three_hours.invoke(client)
        await asyncio.sleep(0.05)
    assert asyncio.all_tasks() == before


async def test_a_runtime_is_entered_as_the_loop_wants_it() -> None:
    with pytest.raises(RuntimeError, match="entered with 'async with'"), runtime():
        pass


def test_a_runtime_of_an_ended_loop_says_so() -> None:
    opened = runtime()
    with asyncio.Runner() as runner:
        runner.run(opened.client.list_queues())
    with pytest.raises(RuntimeError, match="open one for each test"):
        asyncio.run(opened.client.list_queues())
    opened.close()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"model": "Hello"}, r"write a list of answers, \['Hello'\]"),
        ({"model": [5]}, "is no answer of a model"),
        ({"max_steps": 3}, "max_steps"),
    ],
)
def test_bad_options_are_refused_at_once(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        runtime(**options)
