"""Programs that ask what time it is, for workers of which each has an opinion of its own."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel
from skew_names import HASTY, TICK, UNTIL
from week_program import agent_of, charge, effect, stamp

from polos import SchedulePayload, UsageLimits, WorkflowContext, deadline, workflow

DEADLINE_SECONDS = 240.0  # more than a run takes; less than clocks are wrong by


class Moment(BaseModel):
    """When a run is to go on: seconds since the epoch."""

    at: float


@workflow(id=UNTIL)
async def until(ctx: WorkflowContext, moment: Moment) -> str:
    root = ctx.root_execution_id
    await ctx.step.run("before", effect, root, "before")
    await ctx.step.wait_until("moment", datetime.fromtimestamp(moment.at, UTC))
    return str(await ctx.step.run("woke", effect, root, "woke"))


@workflow(id=TICK, schedule={"cron": "* * * * *"})
async def tick(ctx: WorkflowContext, due: SchedulePayload) -> str:
    return str(await ctx.step.run("tick", effect, ctx.root_execution_id, "tick"))


hasty = agent_of(
    HASTY,
    [charge, stamp],
    usage_limits=UsageLimits(deadline_seconds=DEADLINE_SECONDS),
    stop_conditions=[deadline(seconds=DEADLINE_SECONDS)],
)
