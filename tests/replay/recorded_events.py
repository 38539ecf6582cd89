"""Events that runs publish, and one that asks a person: since the revisions that numbered events."""

from __future__ import annotations

from typing import Any

from recorded import Start

from polos import WorkflowContext, workflow

STARTS = [
    Start("recorded-publisher", since="0003"),
    Start("recorded-question", becomes="waiting", ends="completed", output="yes", since="0003"),
]


@workflow(id="recorded-publisher")
async def publisher(ctx: WorkflowContext) -> str:
    await ctx.step.publish_event("told", "recorded/news", {"number": 1}, "news")
    await ctx.step.publish_workflow_event("progress", {"percent": 50}, "progress")
    return str(await ctx.step.run("after", lambda: "after"))


@workflow(id="recorded-question")
async def question(ctx: WorkflowContext) -> Any:
    await ctx.step.run("before", lambda: "before")
    return (await ctx.step.suspend("ask", {"question": "Shall I?"}))["data"]["answer"]
