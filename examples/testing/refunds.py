"""An agent that gives money back, and a workflow that asks the customer a day later."""

from datetime import timedelta

from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool, workflow


class Refund(BaseModel):
    order: str
    amount: float


async def needs_approval(ctx: WorkflowContext, refund: Refund) -> bool:
    return refund.amount > 50


@tool(description="Give the money for an order back", approval=needs_approval)
async def give_back(ctx: WorkflowContext, refund: Refund) -> str:
    return f"{refund.amount:.2f} given back for {refund.order}"  # ask your payment service


support_agent = Agent(
    id="support-agent",
    provider="openai",
    model="gpt-4o",
    system_prompt="You answer questions of customers. Give money back where they are right.",
    tools=[give_back],
)


class Case(BaseModel):
    customer: str
    complaint: str


@workflow(id="complaint")
async def handle_complaint(ctx: WorkflowContext, case: Case) -> dict[str, str]:
    answer = await ctx.step.agent_invoke_and_wait("answer", support_agent.with_input(case.complaint))
    await ctx.step.wait_for("a day", days=1)
    question = {"customer": case.customer, "question": "Are you happy with our answer?"}
    wait = timedelta(days=7).total_seconds()
    reply = await ctx.step.suspend("survey", data=question, timeout=wait)
    return {"answer": answer.result, "reply": reply["data"]["text"]}
