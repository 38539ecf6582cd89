"""Workflows from start to end: payloads, results, steps, children."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backends import on_both
from pydantic import BaseModel

from polos import (
    Polos,
    StepExecutionError,
    WorkflowContext,
    WorkflowState,
    workflow,
)
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(30)


class Number(BaseModel):
    n: int


@workflow
async def e2e_double(ctx: WorkflowContext, payload: Number) -> Number:
    return Number(n=payload.n * 2)


@workflow
async def e2e_family(ctx: WorkflowContext, payload: Number) -> dict[str, Any]:
    step = await ctx.step.run("step", lambda: Number(n=payload.n + 1))
    child = await ctx.step.invoke_and_wait("child", e2e_double, step)
    both = await asyncio.gather(
        ctx.step.invoke_and_wait("left", e2e_double, child),
        ctx.step.invoke_and_wait("right", "e2e_double", {"n": 5}),
        ctx.step.run("zero", lambda: 0),
    )
    return {"step": step, "child": child, "both": list(both)}


@on_both
async def test_a_workflow_returns_what_its_steps_and_children_returned(polos: Polos) -> None:
    result = await e2e_family.run(polos, Number(n=1))

    assert result == {"step": {"n": 2}, "child": {"n": 4}, "both": [{"n": 8}, {"n": 10}, 0]}
