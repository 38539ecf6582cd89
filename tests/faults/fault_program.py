"""The program under test: for each case its own workflow or agent, whose side effects go to the ledger."""

from __future__ import annotations

import os
from typing import Any

from cases import CASES, REFERENCES, Case
from ledger import Ledger
from pydantic import BaseModel

from polos import Agent, Tool, Workflow, WorkflowContext, workflow

ledger = Ledger(os.environ["FAULT_LEDGER"])
MODEL_URL = os.environ.get("FAULT_MODEL_URL", "")


class Amount(BaseModel):
    euros: int


def effect(run_id: str, name: str) -> str:
    """Do something to the world."""
    ledger.write(run_id, name, "start")
    ledger.write(run_id, name, "end")
    return f"{name} is done"


def define_plain(case: Case) -> Workflow:
    @workflow(id=f"plain-{case.id}", route=case.id)
    async def plain(ctx: WorkflowContext) -> list[str]:
        names = ("first", "second", "third")
        return [await ctx.step.run(name, effect, ctx.root_execution_id, name) for name in names]

    return plain


def define_child(case: Case) -> Workflow:
    @workflow(id=f"inner-{case.id}", route=case.id)
    async def inner(ctx: WorkflowContext, amount: Amount) -> Amount:
        await ctx.step.run("inside", effect, ctx.root_execution_id, "inside")
        return Amount(euros=amount.euros * 2)

    @workflow(id=f"outer-{case.id}", route=case.id)
    async def outer(ctx: WorkflowContext) -> Any:
        before = await ctx.step.run("before", effect, ctx.root_execution_id, "before")
        doubled = await ctx.step.invoke_and_wait("inner", inner, Amount(euros=21))
        after = await ctx.step.run("after", effect, ctx.root_execution_id, "after")
        return [before, doubled.euros, after]

    return outer


def define_agent(case: Case) -> Agent:
    async def charge(ctx: WorkflowContext, amount: Amount) -> str:
        effect(ctx.root_execution_id, "charge")
        return f"charged {amount.euros}"

    tool = Tool(id=f"tool-{case.id}", description="Charge a card", func=charge, route=f"{case.id}-tool")
    return Agent(
        id=f"agent-{case.id}",
        provider="openai",
        model="the-model",
        tools=[tool],
        route=case.id,
        provider_base_url=MODEL_URL,
        provider_llm_api="chat_completions",
    )


DEFINE = {"plain": define_plain, "child": define_child, "turn": define_agent, "tool": define_agent}
mine = os.environ.get("FAULT_CASE")  # a victim offers nothing but its own
definitions = {
    case.id: DEFINE[case.kind](case)
    for case in (*CASES, *REFERENCES.values())
    if mine is None or case.id == mine
}
