"""Programs that are cancelled where the turnstile holds them; importing this puts it into fault points."""

from __future__ import annotations

import os
from pathlib import Path

from turnstile import Turnstile
from week_program import MODEL_URL, ledger

from polos import Agent, WorkflowContext, faultpoints, tool, workflow

faultpoints._fault = Turnstile(  # type: ignore[assignment]
    Path(os.environ["FAULT_LEDGER"]).with_name("turnstile")
)


def effect(run_id: str, name: str) -> str:
    ledger().write(run_id, name, "start")
    ledger().write(run_id, name, "end")
    return name


@workflow(id="plain-held")
async def plain(ctx: WorkflowContext) -> None:
    for name in ("first", "second", "third"):
        await ctx.step.run(name, effect, ctx.root_execution_id, name)


@workflow(id="inner-held")
async def inner(ctx: WorkflowContext) -> None:
    await ctx.step.run("inside", effect, ctx.root_execution_id, "inside")


@workflow(id="child-held")
async def child(ctx: WorkflowContext) -> None:
    await ctx.step.run("before", effect, ctx.root_execution_id, "before")
    await ctx.step.invoke_and_wait("inner", inner)
    await ctx.step.run("after", effect, ctx.root_execution_id, "after")


@workflow(id="waits-held")
async def waits(ctx: WorkflowContext) -> None:
    topic = f"held/{ctx.execution_id}"
    await ctx.step.publish_event("said", topic=topic, data={})
    await ctx.step.wait_for_event("heard", topic=topic, since=0)
    await ctx.step.wait_for("slept", seconds=0.01)
    await ctx.step.run("after", effect, ctx.root_execution_id, "after")
    await ctx.step.suspend("asked", {}, timeout=60)


@tool(id="charge_held", description="Charge a card")
async def charge(ctx: WorkflowContext) -> str:
    return effect(ctx.root_execution_id, "charge")


def _agent(name: str) -> Agent:
    return Agent(
        id=name,
        provider="openai",
        model="the-model",
        tools=[charge],
        provider_base_url=f"{MODEL_URL}/v1",
        provider_llm_api="chat_completions",
    )


clerk = _agent("agent-held")
speaker = _agent("speaker-held")


@workflow(id="told-held")
async def told(ctx: WorkflowContext) -> str:
    """Has an agent speak to who follows it."""
    answer = await ctx.step.agent_invoke_and_wait("speaker", speaker.with_input("Speak", streaming=True))
    return str(answer.result)
