"""The agent of the demo: asks for the weather of several cities with a tool that takes its time."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool
from polos.demo import ledger
from polos.demo.question import AGENT_ID, DEFAULT_MODEL, LEDGER_VARIABLE, MODEL_VARIABLE

# Temperature, sky, and how many seconds the answer takes: different ones, so that tools end one by one.
_WEATHER = {
    "Oslo": (4, "snow", 0.6),
    "Paris": (12, "rain", 0.9),
    "Lagos": (31, "humid", 1.2),
    "Lima": (19, "fog", 1.5),
    "Tokyo": (16, "clear", 1.8),
    "Cairo": (34, "clear", 2.1),
    "Nairobi": (24, "clear", 0.8),
    "Reykjavik": (-1, "snow", 1.1),
}
_ELSEWHERE = (20, "clear", 1.0)


class City(BaseModel):
    """What the tool is asked."""

    city: str


class Weather(BaseModel):
    """What the tool answers."""

    city: str
    celsius: int
    sky: str


@tool(description="Get the current weather of a city")
async def get_weather(ctx: WorkflowContext, input: City) -> Weather:
    """Return the weather of a city, slowly, like any service that must be asked over a network."""
    celsius, sky, seconds = _WEATHER.get(input.city, _ELSEWHERE)
    path = Path(os.environ[LEDGER_VARIABLE])
    ledger.write(path, ledger.STARTED, call=ctx.execution_id, city=input.city)
    await asyncio.sleep(seconds)
    ledger.write(path, ledger.FINISHED, call=ctx.execution_id, city=input.city)
    return Weather(city=input.city, celsius=celsius, sky=sky)


weather_agent = Agent(
    id=AGENT_ID,
    provider="openai",
    model=os.environ.get(MODEL_VARIABLE) or DEFAULT_MODEL,
    system_prompt="You answer questions about the weather. Use the tools; be brief.",
    tools=[get_weather],
)
