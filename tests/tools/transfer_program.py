"""What the workers of these tests serve: an agent whose tool needs approval, in a queue of one."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool, workflow

LEDGER = Path("ledger.txt")


class Transfer(BaseModel):
    to: str
    amount: int


@tool(description="Transfer money", approval="always", queue={"concurrency_limit": 1})
def transfer(ctx: WorkflowContext, input: Transfer) -> str:
    with LEDGER.open("a") as ledger:
        ledger.write(f"{input.to} {input.amount}\n")
    return f"{input.amount} to {input.to}"


banker = Agent(id="banker", provider="openai", model="gpt-4o-mini", tools=[transfer])


@workflow
async def probe(ctx: WorkflowContext) -> str:
    return "free"
