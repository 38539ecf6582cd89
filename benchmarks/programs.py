"""What the workers serve in all workloads."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from polos import Agent, BatchWorkflowInput, WorkflowContext, tool, workflow

NOTHING = {"value": "x" * 185}  # 200 bytes of JSON
MANY_STEPS = "many_steps"
ONE_STEP = "one_step"
SLOW_STEPS = "slow_steps"
SLEEPER = "sleeper"


class Steps(BaseModel):
    count: int


class SlowSteps(BaseModel):
    count: int
    seconds: float
    log: str


class Word(BaseModel):
    word: str


async def nothing() -> dict[str, str]:
    return NOTHING


@workflow(id=MANY_STEPS)
async def many_steps(ctx: WorkflowContext, input: Steps) -> float:
    """Return how long the steps took, in seconds; the clock is not part of what is replayed."""
    began = time.perf_counter()
    for number in range(input.count):
        await ctx.step.run(f"step{number}", nothing)
    return time.perf_counter() - began


async def refuse() -> None:
    raise ValueError("This step always fails")


@workflow(id="refused_steps")
async def refused_steps(ctx: WorkflowContext, input: SlowSteps) -> None:
    """Fail after `count` steps, so that a retry replays them; log the times before and after them."""
    log_begin(input.log, 0)
    for number in range(input.count):
        await ctx.step.run(f"step{number}", nothing)
    log_begin(input.log, input.count)
    await ctx.step.run("refused", refuse, max_retries=0)


@workflow(id=ONE_STEP)
async def one_step(ctx: WorkflowContext, word: str) -> dict[str, str]:
    found: dict[str, str] = await ctx.step.run("step", nothing)
    return found


@workflow(id="fan_out")
async def fan_out(ctx: WorkflowContext, input: dict[str, int]) -> float:
    """Return how long the children took, in seconds."""
    began = time.perf_counter()
    children = [BatchWorkflowInput(id=ONE_STEP, payload=str(n)) for n in range(input["children"])]
    items = await ctx.step.batch_invoke_and_wait("children", children)
    if not all(item.success for item in items):
        raise RuntimeError("A child failed")
    return time.perf_counter() - began


@workflow(id=SLEEPER)
async def sleeper(ctx: WorkflowContext, input: dict[str, float]) -> None:
    await ctx.step.wait_until("moment", datetime.fromtimestamp(input["until"], UTC))


def log_begin(log: str, number: int) -> None:
    """Append who begins which step when; all processes of a machine share this clock."""
    with Path(log).open("a") as file:
        file.write(f"{os.getpid()} {number} {time.monotonic()}\n")


async def log_and_sleep(log: str, number: int, seconds: float) -> int:
    log_begin(log, number)
    await asyncio.sleep(seconds)
    return number


@workflow(id=SLOW_STEPS)
async def slow_steps(ctx: WorkflowContext, input: SlowSteps) -> int:
    for number in range(input.count):
        await ctx.step.run(f"step{number}", log_and_sleep, input.log, number, input.seconds)
    return input.count


@tool(description="Look a word up")
async def look_up(ctx: WorkflowContext, input: Word) -> dict[str, Any]:
    return NOTHING


def agent_of(name: str, script: str) -> Agent:
    """Return an agent that goes as a script of the model server says; the model is one that LiteLLM knows."""
    return Agent(
        id=name,
        provider="openai",
        model="gpt-4o",
        provider_llm_api="chat_completions",
        system_prompt=script,
        tools=[look_up],
    )


def script_of(agent: Agent) -> str:
    """Return what `agent_of` was given."""
    return str(agent.system_prompt)


tool_agent = agent_of("tool_agent", "script-3-5-0")
slow_agent = agent_of("slow_agent", "script-1-1-2000")
long_calls_agent = agent_of("long_calls_agent", "script-1-1-20000")
long_agent = agent_of("long_agent", "script-99-1-0")
longer_agent = agent_of("longer_agent", "script-199-1-0")
steady_speaker = agent_of("steady_speaker", "stream-60-50")
fast_speaker = agent_of("fast_speaker", "stream-500-0")
short_long_agent = agent_of("short_long_agent", "script-39-1-0")
