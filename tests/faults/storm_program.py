"""A parent with fifty children, for cancels."""

from __future__ import annotations

from week_program import Order, effect

from polos import WorkflowContext, workflow
from polos.types import BatchWorkflowInput

CHILDREN = 50


@workflow(id="storm-child")
async def storm_child(ctx: WorkflowContext, order: Order) -> int:
    for part in ("a", "b", "c"):
        name = f"{order.number}.{part}"
        await ctx.step.run(part, effect, ctx.root_execution_id, name)
    return order.number


@workflow(id="storm-parent")
async def storm_parent(ctx: WorkflowContext, order: Order) -> int:
    items = [BatchWorkflowInput(id="storm-child", payload=Order(number=n)) for n in range(CHILDREN)]
    results = await ctx.step.batch_invoke_and_wait("children", items)
    return len(results)
