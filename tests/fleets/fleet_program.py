"""What the workers of these tests serve: agents, trees of workflows, and stairs that trace each step."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from polos import Agent, WorkflowContext, max_steps, tool, workflow

STEPS = 12
GATES = (2, 8)  # steps that go on when the test says so, by a file
TRACE = Path("stairs.trace")


class City(BaseModel):
    city: str


@tool(description="The temperature of a city")
async def temperature(ctx: WorkflowContext, payload: City) -> dict[str, Any]:
    return {"city": payload.city, "celsius": await ctx.step.run("measure", measure, payload.city)}


async def measure(city: str) -> int:
    await asyncio.sleep(0.01)
    return len(city)


@tool(description="The name of the thread that executes it")
def where(ctx: WorkflowContext) -> str:
    return threading.current_thread().name


clerk = Agent(
    id="clerk",
    provider="openai",
    model="gpt-4o-mini",
    system_prompt="You look things up.",
    tools=[temperature, where],
    stop_conditions=[max_steps(5)],
)


@workflow(id="leaf")
async def leaf(ctx: WorkflowContext, payload: dict[str, int]) -> int:
    return payload["n"] + 1


@workflow(id="branch")
async def branch(ctx: WorkflowContext, payload: dict[str, int]) -> int:
    left, right = await asyncio.gather(
        ctx.step.invoke_and_wait("left", leaf, payload), ctx.step.invoke_and_wait("right", leaf, payload)
    )
    return int(left + right)


@workflow(id="root")
async def root(ctx: WorkflowContext, payload: dict[str, int]) -> int:
    doubled = await ctx.step.run("double", lambda: payload["n"] * 2)
    return int(await ctx.step.invoke_and_wait("branch", branch, {"n": doubled}))


@workflow(id="impatient")
async def impatient(ctx: WorkflowContext, payload: dict[str, int]) -> int:
    """Waits for its child in a way that cannot be parked."""
    return int(await asyncio.wait_for(ctx.step.invoke_and_wait("branch", branch, payload), 60))


@workflow(id="stairs")
async def stairs(ctx: WorkflowContext) -> int:
    for number in range(STEPS):
        await ctx.step.run(f"step {number}", climb, number)
    return STEPS


async def climb(number: int) -> int:
    _trace(number)
    while not _is_open(number):
        await asyncio.sleep(0.01)
    return number


def _is_open(number: int) -> bool:
    return number not in GATES or Path(f"gate {number}").exists()


def _trace(number: int) -> None:
    with TRACE.open("a") as trace:
        trace.write(f"{number} {os.getpid()}\n")


@workflow(id="gpu-job", route="gpu")
async def gpu_job(ctx: WorkflowContext) -> int:
    return os.getpid()


@workflow(id="boss")
async def boss(ctx: WorkflowContext) -> list[int]:
    return [os.getpid(), int(await ctx.step.invoke_and_wait("job", gpu_job))]


def die() -> None:
    """End the process as a fault in a library does."""
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)  # the signal may strike another thread, a little later


@workflow(id="poison")
async def poison(ctx: WorkflowContext, payload: dict[str, str]) -> Any:
    made = {"segfault": die, "huge": lambda: "x" * 50_000_000, "object": object}[payload["what"]]
    return await ctx.step.run("make", made, max_retries=0)
