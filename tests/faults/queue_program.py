"""Programs that share queues: three steps that nobody else of the same key may come between, and one step."""

from __future__ import annotations

from week_program import Order, effect

from polos import WorkflowContext, queue, workflow

PARTS = ("open", "use", "close")
FEW = 5


@workflow(id="queue-holder", queue=queue("queue-holder", concurrency_limit=1))
async def holder(ctx: WorkflowContext, order: Order) -> int:
    """Holds what `side` names from its first step to its last."""
    for part in PARTS:
        await ctx.step.run(part, effect, ctx.root_execution_id, f"{order.side}.{part}")
    return order.number


@workflow(id="queue-few", queue=queue("queue-few", concurrency_limit=FEW))
async def few(ctx: WorkflowContext, order: Order) -> int:
    await ctx.step.run("work", effect, ctx.root_execution_id, f"{order.side}.work")
    return order.number


@workflow(id="queue-tenant")
async def tenant(ctx: WorkflowContext, order: Order) -> int:
    await ctx.step.run("work", effect, ctx.root_execution_id, f"{order.side}.work")
    return order.number
