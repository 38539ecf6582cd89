"""The agent that most tests of agents run, and what it is made of."""

from typing import Any

from models.servers import Recorder
from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool


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
