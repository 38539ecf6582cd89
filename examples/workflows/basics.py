"""Steps, durable values, a timer and child workflows."""

import asyncio

from pydantic import BaseModel

from polos import Polos, WorkflowContext, workflow


class Names(BaseModel):
    names: list[str]


class Collected(BaseModel):
    count: int
    items: list[str]


class Item(BaseModel):
    text: str


class Cleaned(BaseModel):
    text: str
    valid: bool


@workflow
async def collect(ctx: WorkflowContext, payload: Names) -> Collected:
    """Each step is recorded: a run that goes on elsewhere does none of them again."""
    upper = await ctx.step.run("upper", lambda: [name.upper() for name in payload.names])
    collected = await ctx.step.run(
        "collect",
        lambda items: Collected(count=len(items), items=items),
        upper,
        max_retries=3,
        base_delay=0.2,
    )
    print(f"order {await ctx.step.uuid('order id')}, collected at {await ctx.step.now('time')}")
    coin = await ctx.step.random("coin")
    print("heads" if coin < 0.5 else "tails")
    return collected


@workflow(id="clean-item")
async def clean_item(ctx: WorkflowContext, payload: Item) -> Cleaned:
    text = await ctx.step.run("strip", payload.text.strip)
    return Cleaned(text=text, valid=bool(text))


@workflow(id="clean-all")
async def clean_all(ctx: WorkflowContext, payload: Names) -> Collected:
    """A child workflow per item, after a timer that survives the death of this process."""
    await ctx.step.wait_for("a moment", seconds=1)
    cleaned = [
        await ctx.step.invoke_and_wait(f"clean {place}", clean_item, Item(text=text))
        for place, text in enumerate(payload.names)
    ]
    valid = [item.text for item in cleaned if item.valid]
    return Collected(count=len(valid), items=valid)


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        print(await collect.run(polos, Names(names=["hello", "world"])))
        print(await clean_all.run(polos, Names(names=[" tea", "milk ", "  "])))


if __name__ == "__main__":
    asyncio.run(main())
