"""A run that asks a person between two side effects."""

from __future__ import annotations

from typing import Any

from week_program import Order, effect

from polos import WorkflowContext, workflow


@workflow(id="asks-between")
async def asks_between(ctx: WorkflowContext, order: Order) -> Any:
    root = ctx.root_execution_id
    await ctx.step.run("before", effect, root, "before")
    answer = await ctx.step.suspend("approve", {"order": order.number})
    await ctx.step.run("after", effect, root, "after")
    return answer["data"]["by"]
