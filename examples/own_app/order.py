"""Enqueues a task and starts a run, as a view of a web application would."""

import asyncio

from proj.agents import Order, thank_customer
from proj.tasks import total

from polos import PolosClient

PRICES = {"chair": 80.0, "lamp": 19.5}


async def main() -> None:
    bill = total.delay(list(PRICES.values()))
    async with PolosClient() as client:
        thanks = await thank_customer.run(client, Order(customer="ada@example.com", items=list(PRICES)))
    print(f"{await asyncio.to_thread(bill.get, timeout=30)}: {thanks}")


if __name__ == "__main__":
    asyncio.run(main())
