"""A program with a Celery app of its own: tasks that tell how they are executed, and runs beside them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery
from msgpack import Timestamp

import polos
from polos import Agent, WorkflowContext, max_steps, tool, workflow

app = Celery("shop")
app.conf.update(
    broker_url=os.environ["SHOP_BROKER"],
    result_backend=os.environ["SHOP_RESULTS"],
    **json.loads(os.environ.get("SHOP_SETTINGS", "{}")),
)
polos.install(app)


@app.task(bind=True)
def settings_of(self: Any) -> dict[str, Any]:
    """What one of its own tasks is executed with."""
    return {
        "acks_late": self.acks_late,
        "rate_limit": self.rate_limit,
        "limits": [self.time_limit, self.soft_time_limit],
        "serializer": self.serializer,
        "queue": self.request.delivery_info["routing_key"],
        "pid": os.getpid(),
    }


@app.task(serializer="msgpack")
def seconds_of(moment: Timestamp) -> int:
    """No JSON could bring its argument."""
    return int(moment.seconds)


@app.task(time_limit=1)
def too_slow() -> None:
    time.sleep(3)


@app.task(acks_late=True, reject_on_worker_lost=True)
def dies_once(trace: str) -> str:
    """Kills its process; ends when it is executed for the second time."""
    if Path(trace).exists():
        return "delivered again"
    Path(trace).touch()
    os.kill(os.getpid(), signal.SIGKILL)
    return "unreachable"


@app.task(rate_limit="60/m")
def limited() -> float:
    return time.time()


@tool(description="How many of a thing are in stock")
async def stock(ctx: WorkflowContext) -> int:
    return int(await ctx.step.run("count", lambda: 3))


clerk = Agent(
    id="clerk",
    provider="openai",
    model="gpt-4o-mini",
    system_prompt="You answer customers.",
    tools=[stock],
    stop_conditions=[max_steps(5)],
)


@workflow(id="part")
async def part(ctx: WorkflowContext, payload: dict[str, Any]) -> int:
    return int(payload["n"]) + 1


@workflow(id="whole")
async def whole(ctx: WorkflowContext, payload: dict[str, Any]) -> list[Any]:
    pause = payload.get("pause", 0)
    slept = await ctx.step.run("sleep", lambda: time.sleep(pause))
    parts = await asyncio.gather(
        *(ctx.step.invoke_and_wait(f"part {n}", part, {"n": n}) for n in range(payload["n"]))
    )
    return [slept, sum(parts)]
