import asyncio

from pydantic import BaseModel

from polos import Agent, PolosClient, WorkflowContext, workflow


class Question(BaseModel):
    customer: str
    text: str


class Ticket(BaseModel):
    number: str
    answer: str
    mail_id: str


support_agent = Agent(
    id="support-agent",
    provider="openai",
    model="gpt-4o",
    system_prompt="You answer questions of customers, in two sentences.",
)


async def send_mail(to: str, body: str) -> str:
    print(f"mail to {to}: {body}")
    return f"mail-{to}"


@workflow
async def customer_support(ctx: WorkflowContext, question: Question) -> Ticket:
    number = await ctx.step.uuid("ticket_number")
    answer = await ctx.step.agent_invoke_and_wait("answer", support_agent.with_input(question.text))
    mail_id = await ctx.step.run("send_mail", send_mail, question.customer, body=answer.result)
    return Ticket(number=number, answer=answer.result, mail_id=mail_id)


async def main() -> None:
    async with PolosClient() as client:
        question = Question(customer="ada@example.com", text="How do I reset my password?")
        ticket = await customer_support.run(client, question)
    print(f"ticket {ticket.number}: {ticket.mail_id}")


if __name__ == "__main__":
    asyncio.run(main())
