"""What the workers serve: an agent that answers questions about orders."""

from django.db import close_old_connections
from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool
from support.models import Order


class OrderNumber(BaseModel):
    number: str


# An ordinary function: it runs in a thread of the worker, where the ORM may wait for the database.
@tool(description="Look up where an order is")
def find_order(ctx: WorkflowContext, input: OrderNumber) -> str:
    close_old_connections()  # Django does it between requests, which a worker does not have
    order = Order.objects.filter(number=input.number).first()
    return order.status if order else "there is no such order"


support_agent = Agent(
    id="order-support",
    provider="openai",
    model="gpt-4o",
    system_prompt="You answer questions about orders. Look the order up first.",
    tools=[find_order],
)
