"""Runs in memory: agents and workflows end as they do on a fleet."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool, workflow
from polos.errors import RunFailedError
from polos.testing import MovableClock, ScriptedModel, error, runtime, tool_call

pytestmark = pytest.mark.timeout(60)


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


def test_a_runtime_loads_no_litellm() -> None:
    program = (
        "import asyncio, sys\n"
        "from polos.testing import runtime\n"
        "async def main():\n"
        "    async with runtime():\n"
        "        assert 'litellm' not in sys.modules, 'litellm was imported'\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
