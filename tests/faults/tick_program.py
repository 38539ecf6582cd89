"""What schedules and events start."""

from __future__ import annotations

from typing import Any

from week_program import effect

from polos import WorkflowContext, workflow


@workflow(id="tick", schedule=True)
async def tick(ctx: WorkflowContext, payload: dict[str, Any]) -> str:
    return await ctx.step.run("tick", effect, ctx.root_execution_id, "tick")


@workflow(id="started-by-event", trigger_on_event="faults/started")
async def started(ctx: WorkflowContext, payload: Any) -> str:
    return await ctx.step.run("started", effect, ctx.root_execution_id, "started")
