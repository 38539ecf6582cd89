"""Agents that call tools and answer in a schema, alone and in workflows, and some that are half-way."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from recorded import MODEL_URL, Start, asks, effects, stuck_while_recording

from polos import Agent, WorkflowContext, max_steps, tool, workflow

STARTS = [
    Start("recorded-agent", {"input": asks("Hello.")}),
    Start(
        "recorded-agent",
        {
            "input": asks(
                "Both are mild.",
                ("recorded_weather", {"city": "Paris"}),
                ("recorded_weather", {"city": "Atlantis"}),
                ("recorded_sum", {"numbers": [1, 2]}),
            )
        },
    ),
    Start("recorded-agent", {"input": [{"role": "user", "content": asks("A list.")}]}),
    Start("recorded-stopped", {"input": asks("Never.", ("recorded_sum", {"numbers": [3]}))}),
    Start("recorded-desk"),
    Start(
        "recorded-agent",
        {"input": asks("At last.", hangs=True)},
        becomes="running",
        ends="completed",
        output="At last.",
    ),
    Start(
        "recorded-agent",
        {"input": asks("Slowly.", ("recorded_slow", {}))},
        becomes="running",
        ends="completed",
        output="Slowly.",
    ),
]


class City(BaseModel):
    city: str


class Numbers(BaseModel):
    numbers: list[int]


class Weather(BaseModel):
    city: str
    degrees: float


def look() -> float:
    effects.append("look")
    return 21.5


@tool(id="recorded_weather", description="The weather in a city")
async def weather(ctx: WorkflowContext, input: City) -> Weather:
    if input.city == "Atlantis":
        raise LookupError("no such city")
    found = await ctx.step.run("look", look)
    return Weather(city=input.city, degrees=found)


@tool(id="recorded_sum", description="Add numbers")
def add_up(ctx: WorkflowContext, input: Numbers) -> int:
    effects.append("tool")
    return sum(input.numbers)


@tool(id="recorded_slow", description="Take long")
async def slow(ctx: WorkflowContext) -> str:
    return str(await stuck_while_recording("done"))


def agent_of(name: str, **options: Any) -> Agent:
    return Agent(
        id=name,
        provider="openai",
        model="the-model",
        provider_base_url=MODEL_URL,
        provider_llm_api="chat_completions",
        **options,
    )


agent = agent_of("recorded-agent", system_prompt="You are recorded.", tools=[weather, add_up, slow])
stopped = agent_of("recorded-stopped", tools=[add_up], stop_conditions=[max_steps(count=1)])


@workflow(id="recorded-desk")
async def desk(ctx: WorkflowContext) -> list[Any]:
    asked = asks("It is 3.", ("recorded_sum", {"numbers": [1, 2]}))
    answer = await ctx.step.agent_invoke_and_wait("ask", agent.with_input(asked))
    return [answer.result, answer.total_steps, await ctx.step.run("close", lambda: "closed")]
