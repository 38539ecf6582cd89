"""Agents that remember, that ask before a tool runs, and that fold what was said."""

from __future__ import annotations

from typing import Any

from recorded import Start, asks
from recorded_agents import Numbers, agent_of

from polos import WorkflowContext, tool

SESSION = "recorded-session"
STARTS = [
    Start("recorded-rememberer", {"input": asks("Hello Ada.")}, since="0006", session=SESSION),
    Start("recorded-rememberer", {"input": asks("You are Ada.")}, since="0006", session=SESSION),
    Start(
        "recorded-payer",
        {"input": asks("It is paid.", ("recorded_pay", {"numbers": [42]}))},
        becomes="running",
        ends="completed",
        output="It is paid.",
        since="0005",
    ),
]


@tool(id="recorded_pay", description="Pay", approval="always")
async def pay(ctx: WorkflowContext, input: Numbers) -> Any:
    return await ctx.step.run("pay", lambda: {"paid": sum(input.numbers)})


payer = agent_of("recorded-payer", tools=[pay])
rememberer = agent_of("recorded-rememberer")
