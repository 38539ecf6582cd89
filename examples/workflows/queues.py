"""Queues: how many runs go at once, whoever starts them and wherever they run."""

import asyncio
import time

from polos import Polos, WorkflowContext, queue, workflow

printer = queue("printer", concurrency_limit=1)
going: list[str] = []


def use(name: str) -> int:
    """Take half a second; return how many do so at once."""
    going.append(name)
    time.sleep(0.5)
    at_once = len(going)
    going.remove(name)
    return at_once


@workflow(queue=printer)
async def print_page(ctx: WorkflowContext, payload: dict) -> int:
    return await ctx.step.run("print", use, f"page {payload['page']}")


@workflow(queue={"concurrency_limit": 3})
async def send_mail(ctx: WorkflowContext, payload: dict) -> int:
    return await ctx.step.run("send", use, f"mail {payload['to']}")


async def most_at_once(polos: Polos, starting: list) -> int:
    handles = await asyncio.gather(*starting)
    records = await asyncio.gather(*(polos.wait(handle.id) for handle in handles))
    return max(record["result"] for record in records)


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        pages = [print_page.invoke(polos, {"page": page}) for page in range(3)]
        print(f"pages printed at once: {await most_at_once(polos, pages)}")
        mails = [send_mail.invoke(polos, {"to": to}) for to in range(6)]
        print(f"mails sent at once, at most 3: {await most_at_once(polos, mails)}")
        # A queue made on the fly, by its first run:
        starting = [
            polos.invoke(
                workflow_id="send_mail", payload={"to": to}, queue_name="slow lane", queue_concurrency_limit=1
            )
            for to in range(2)
        ]
        print(f"mails in the slow lane at once: {await most_at_once(polos, starting)}")


if __name__ == "__main__":
    asyncio.run(main())
