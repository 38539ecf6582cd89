"""What the worker of the server's tests offers."""

import asyncio
import json

from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool, workflow


class Numbers(BaseModel):
    a: int
    b: int


@workflow(description="Adds two numbers")
async def add(ctx: WorkflowContext, numbers: Numbers) -> int:
    return numbers.a + numbers.b


@workflow(id="team/greet")
async def greet(ctx: WorkflowContext, payload: dict[str, str]) -> str:
    return f"Hello {payload['name']}"


@workflow
async def linger(ctx: WorkflowContext, payload: dict[str, float]) -> str:
    await asyncio.sleep(payload["seconds"])
    return "done"


@workflow
async def repeat(ctx: WorkflowContext, payload: dict[str, int]) -> int:
    """Results of several steps: events of any number and size."""
    for number in range(payload["steps"]):
        await ctx.step.run(f"step_{number}", lambda: "x" * payload["size"])
    return payload["steps"]


@tool(description="Says the same again")
async def echo(ctx: WorkflowContext, input: Numbers) -> int:
    return input.a


parrot = Agent(id="parrot", provider="openai", model="gpt-4o", system_prompt="Repeat.", tools=[echo])


@workflow
async def approve(ctx: WorkflowContext, payload: dict[str, str]) -> dict[str, bool]:
    if "pause" in payload:
        await ctx.step.wait_for("pause", seconds=float(payload["pause"]))
    form = {"title": "Deploy?", "fields": json.loads(payload["fields"])} if "fields" in payload else None
    answer = await ctx.step.suspend(payload["key"], data={"_form": form or {"title": "Deploy?"}})
    given: dict[str, bool] = answer["data"]
    return given
