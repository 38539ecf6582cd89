"""When steps fail: retries, another way, and taking back what was done."""

import asyncio

from polos import Polos, StepExecutionError, WorkflowContext, workflow


class Flaky:
    """Fails a number of times, then succeeds."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def __call__(self) -> str:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("no answer")
        return "the answer"


@workflow
async def try_again(ctx: WorkflowContext) -> str:
    return await ctx.step.run("ask", Flaky(2), max_retries=3, base_delay=0.1)


@workflow
async def another_way(ctx: WorkflowContext) -> dict:
    try:
        return {"way": "first", "answer": await ctx.step.run("ask", Flaky(9), max_retries=1, base_delay=0.1)}
    except StepExecutionError as error:
        print(f"fell back: {error}")
        return {"way": "second", "answer": await ctx.step.run("look up", lambda: "an older answer")}


@workflow
async def book_trip(ctx: WorkflowContext, payload: dict) -> dict:
    """A saga: each step that succeeds is taken back when a later one fails for good."""
    done = []
    try:
        for part in ["flight", "hotel", "car"]:
            await ctx.step.run(f"book {part}", book, part, payload["sold_out"], max_retries=0)
            done.append(part)
    except StepExecutionError:
        for part in reversed(done):
            await ctx.step.run(f"cancel {part}", print, f"cancelled {part}")
        return {"status": "taken back", "parts": done[::-1]}
    return {"status": "booked", "parts": done}


def book(part: str, sold_out: str) -> str:
    if part == sold_out:
        raise ValueError(f"no {part} is left")
    return f"{part} booked"


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        print(await try_again.run(polos))
        print(await another_way.run(polos))
        print(await book_trip.run(polos, {"sold_out": ""}))
        print(await book_trip.run(polos, {"sold_out": "car"}))


if __name__ == "__main__":
    asyncio.run(main())
