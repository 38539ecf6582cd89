import asyncio

from pydantic import BaseModel

from polos import Agent, Polos, WorkflowContext, tool


class Customer(BaseModel):
    name: str


@tool(description="Look up the invoice of a customer")
async def find_invoice(ctx: WorkflowContext, input: Customer) -> dict:
    return {"customer": input.name, "amount": 120, "due": "2030-01-31"}


billing = Agent(
    id="billing",
    provider="openai",
    model="gpt-4o-mini",
    system_prompt="You answer questions about invoices.",
    description="Knows invoices.",
    tools=[find_invoice],
)
triage = Agent(
    id="triage",
    provider="openai",
    model="gpt-4o",
    system_prompt="Hand over to the agent that knows best.",
    handoffs=[billing],
)


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        answer = await triage.run(polos, "I am Ada. When is my invoice due?")
    print(f"{answer.agent_id}: {answer.result}")


if __name__ == "__main__":
    asyncio.run(main())
