"""What the workers of these tests serve."""

import asyncio
import os
from typing import Any

from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool, workflow


class Given(BaseModel):
    n: int


@tool(id="stream-double", description="Doubles a number")
async def double(ctx: WorkflowContext, input: Given) -> dict[str, Any]:
    return {"doubled": 2 * input.n}


@tool(id="stream-broken", description="Fails")
async def broken(ctx: WorkflowContext, input: Given) -> None:
    raise RuntimeError("the tool broke")


speaker = Agent(
    id="stream-speaker",
    provider="openai",
    model="m",
    provider_base_url=os.environ.get("TALKER_URL", "http://127.0.0.1:9/v1"),
    provider_llm_api="chat_completions",
    tools=[double, broken],
)


@workflow(id="stream-steps")
async def steps(ctx: WorkflowContext, payload: dict[str, Any]) -> str:
    for number in range(payload["steps"]):
        await ctx.step.run(f"step {number}", lambda number=number: number)
        await asyncio.sleep(payload.get("pause", 0.0))
    return "done"


@workflow(id="stream-pair")
async def pair(ctx: WorkflowContext, payload: dict[str, Any]) -> list[Any]:
    """Two agents speak at the same time."""
    asked = [speaker.with_input(text, streaming=True) for text in payload["texts"]]
    calls = [ctx.step.agent_invoke_and_wait(f"agent {n}", one) for n, one in enumerate(asked)]
    return [result.result for result in await asyncio.gather(*calls)]


@workflow(id="stream-fails")
async def fails(ctx: WorkflowContext, payload: dict[str, Any]) -> None:
    raise ValueError("no such order")


@workflow(id="stream-reports")
async def reports(ctx: WorkflowContext, payload: dict[str, Any]) -> str:
    """Tells its own readers and a topic how far it is; fails once on its way, so that it is replayed."""
    for number in range(payload["parts"]):
        await ctx.step.publish_workflow_event(f"progress {number}", {"part": number}, event_type="progress")
        await ctx.step.publish_event(f"tell {number}", payload["topic"], {"part": number}, event_type="part")
    await ctx.step.run("once", lambda: None)
    if ctx.retry_count == 0:
        raise RuntimeError("once more")
    return "reported"


@workflow(id="stream-asks")
async def asks(ctx: WorkflowContext, payload: dict[str, Any]) -> list[Any]:
    """Asks one question after the other."""
    answers = []
    for key in payload["keys"]:
        answer = await ctx.step.suspend(key, data={"question": f"{key}?"}, timeout=payload.get("timeout"))
        answers.append(answer["data"])
    return answers


@workflow(id="stream-asks_below")
async def asks_below(ctx: WorkflowContext, payload: dict[str, Any]) -> list[Any]:
    """Two runs below ask under the same key."""
    calls = [ctx.step.invoke_and_wait(f"child {n}", asks, {"keys": ["approve"]}) for n in range(2)]
    return list(await asyncio.gather(*calls))
