import asyncio
import sys

from pydantic import BaseModel

from polos import Agent, Polos, WorkflowContext, tool, workflow


class Order(BaseModel):
    customer: str
    amount: float


class Charge(BaseModel):
    charge_id: str
    amount: float


class Outcome(BaseModel):
    status: str
    charge: Charge


@tool(description="Charge the customer's card")
async def charge_card(ctx: WorkflowContext, input: Order) -> Charge:
    print(f"*** charged {input.customer} {input.amount:.2f}")
    return Charge(charge_id=f"ch_{input.customer}", amount=input.amount)


cashier = Agent(
    id="cashier",
    provider="openai",
    model="gpt-4o",
    system_prompt="Charge the order, then give the charge.",
    tools=[charge_card],
    output_schema=Charge,
)


def send_mail(customer: str, execution_id: str) -> None:
    print(f"*** mail to {customer} (run {execution_id})")


@workflow
async def process_order(ctx: WorkflowContext, order: Order) -> Outcome:
    paid = await ctx.step.agent_invoke_and_wait(
        "charge", cashier.with_input(f"Charge {order.customer} {order.amount}")
    )
    if order.amount > 1000:
        review = await ctx.step.suspend("fraud_review", data=paid.result, timeout=86400)
        if not review["data"]["approved"]:
            return Outcome(status="rejected", charge=paid.result)
    await ctx.step.run("mail", send_mail, order.customer, execution_id=ctx.root_execution_id)
    return Outcome(status="completed", charge=paid.result)


async def main(amount: float) -> None:
    async with Polos(log_file="polos.log") as polos:
        handle = await process_order.invoke(polos, Order(customer="ada", amount=amount))
        if amount > 1000:
            print(f"Approve in a second terminal: polos approvals answer {handle.id} fraud_review --approve")
        record = await polos.wait(handle.id)
        print(record["status"], record["result"]["status"])


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 250))
