"""What the worker of these tests serves, and programs start by id or by definition."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from pydantic import BaseModel

from polos import EventPayload, SchedulePayload, WorkflowContext, workflow


class Number(BaseModel):
    n: int


class Gate(BaseModel):
    """A run that reaches it goes on when the file exists."""

    file: str


@workflow(id="client-double")
async def double(ctx: WorkflowContext, payload: Number) -> Number:
    return Number(n=payload.n * 2)


@workflow(id="client/list ü")
async def listed(ctx: WorkflowContext, payload: Number) -> list[Number]:
    return [payload, Number(n=0)]


@workflow(id="client-fails")
async def fails(ctx: WorkflowContext, payload: dict[str, Any]) -> None:
    raise LookupError("there is no such thing")


@workflow(id="client-steps")
async def steps(ctx: WorkflowContext, payload: Number) -> int:
    for number in range(payload.n):
        await ctx.step.run(f"step{number}", lambda: {"value": "ä\u2028b"})
    return payload.n


@workflow(id="client-gate")
async def gated(ctx: WorkflowContext, payload: Gate) -> str:
    while not os.path.exists(payload.file):  # noqa: ASYNC240 - a look, now and then
        await asyncio.sleep(0.02)
    return "passed"


@workflow(id="client-nightly", schedule=True)
async def nightly(ctx: WorkflowContext, payload: SchedulePayload) -> str:
    return payload.key


@workflow(id="client-counted", trigger_on_event="client/orders")
async def counted(ctx: WorkflowContext, event: EventPayload) -> int:
    return int(event.data["n"])
