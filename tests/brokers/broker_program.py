"""What every broker has to carry: an agent with a tool, a workflow inside a workflow, a run to cancel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from models.servers import ModelServer
from pydantic import BaseModel

from polos import Agent, PolosClient, WorkflowContext, tool, workflow
from polos.settings import Settings

ENDS_SECONDS = 60.0


class City(BaseModel):
    city: str


@tool(id="broker_weather", description="Get the weather of a city")
async def weather(ctx: WorkflowContext, input: City) -> str:
    return f"sunny in {input.city}"


agent = Agent(id="broker-agent", provider="openai", model="gpt-4o", tools=[weather])


@workflow(id="broker-inner")
async def inner(ctx: WorkflowContext, payload: dict[str, int]) -> int:
    return await ctx.step.run("double", lambda: 2 * payload["number"])


@workflow(id="broker-outer")
async def outer(ctx: WorkflowContext, payload: dict[str, int]) -> int:
    first = await ctx.step.invoke_and_wait("first", inner, payload)
    return await ctx.step.invoke_and_wait("second", inner, {"number": first})


@workflow(id="broker-endless")
async def endless(ctx: WorkflowContext) -> None:
    await asyncio.sleep(600)


@contextlib.asynccontextmanager
async def serving(folder: Path, **values: Any) -> AsyncIterator[PolosClient]:
    """A client with a worker in a thread of this process."""
    settings = Settings(home=folder, embedded_worker="1", sweep_seconds=0.2).with_values(**values)
    async with PolosClient(settings=settings) as client:
        yield client


async def passes_everything(client: PolosClient, model: ModelServer) -> None:
    """An agent with a tool and nested workflows end, and a run that is under way can be cancelled."""
    async with asyncio.timeout(ENDS_SECONDS):
        model.calls(("broker_weather", {"city": "Oslo"}))
        model.says("It is sunny.")
        result = await agent.run(client, "How is Oslo?")
        assert result.result == "It is sunny."
        assert "sunny in Oslo" in str(result.tool_results)

        assert await outer.run(client, {"number": 3}) == 12

        handle = await endless.invoke(client)
        while (await client.get_execution(handle.id))["status"] != "running":
            await asyncio.sleep(0.01)
        assert await client.cancel_execution(handle.id)
        assert (await client.wait(handle.id))["status"] == "cancelled"
