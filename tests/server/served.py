"""What the server's tests run: a workflow that adds, one that waits to be told, and an agent."""

import asyncio

from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool, workflow


class Numbers(BaseModel):
    a: int
    b: int


@workflow
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
async def large(ctx: WorkflowContext, payload: dict[str, int]) -> str:
    return "x" * payload["size"]


@tool(description="Say the same again")
async def echo(ctx: WorkflowContext, input: Numbers) -> int:
    return input.a


parrot = Agent(id="parrot", provider="openai", model="gpt-4o", system_prompt="Repeat.", tools=[echo])
