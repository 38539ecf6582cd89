"""Queues: how many runs go at once, whoever starts them and wherever they run."""

import asyncio
import time

from polos import Polos, WorkflowContext, queue, workflow

printer = queue("printer", concurrency_limit=1)


@workflow(queue=printer)
async def print_page(ctx: WorkflowContext, payload: dict) -> None:
    print(f"page {payload['page']} begins")
    await ctx.step.run("print", time.sleep, 0.5)
    print(f"page {payload['page']} ends")


@workflow(queue={"concurrency_limit": 3})
async def send_mail(ctx: WorkflowContext, payload: dict) -> None:
    await ctx.step.run("send", time.sleep, 0.5)


async def measured(polos: Polos, starting: list) -> float:
    begun = time.monotonic()
    handles = await asyncio.gather(*starting)
    await asyncio.gather(*(polos.wait(handle.id) for handle in handles))
    return time.monotonic() - begun


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        seconds = await measured(polos, [print_page.invoke(polos, {"page": page}) for page in range(3)])
        print(f"one after the other: {seconds >= 1.5}")
        seconds = await measured(polos, [send_mail.invoke(polos, {"to": to}) for to in range(3)])
        print(f"three at once: {seconds < 1.5}")
        # A queue made on the fly, by its first run:
        starting = [
            polos.invoke(
                workflow_id="print_page",
                payload={"page": page},
                queue_name="plotter",
                queue_concurrency_limit=2,
            )
            for page in range(2)
        ]
        seconds = await measured(polos, starting)
        print(f"two at once: {seconds < 1.0}")


if __name__ == "__main__":
    asyncio.run(main())
