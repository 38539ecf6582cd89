"""Agents beside the tasks, and a workflow that enqueues one of them."""

from pydantic import BaseModel

from polos import Agent, WorkflowContext, workflow
from proj.tasks import send_mail

thanks_agent = Agent(
    id="thanks-agent",
    provider="openai",
    model="gpt-4o",
    system_prompt="You thank customers for their orders, in one sentence.",
)


class Order(BaseModel):
    customer: str
    items: list[str]


def enqueue_mail(address: str, text: str) -> str:
    return str(send_mail.delay(address, text).id)


@workflow
async def thank_customer(ctx: WorkflowContext, order: Order) -> str:
    question = thanks_agent.with_input(f"{order.customer} ordered {', '.join(order.items)}.")
    answer = await ctx.step.agent_invoke_and_wait("write", question)
    await ctx.step.run("mail", enqueue_mail, order.customer, answer.result)
    return str(answer.result)
