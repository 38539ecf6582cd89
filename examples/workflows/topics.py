"""Events: workflows that events start, one by one or in batches, and a run that waits for one."""

import asyncio
from datetime import UTC, datetime

from pydantic import BaseModel

from polos import BatchEventPayload, EventPayload, Polos, WorkflowContext, events, workflow


class Received(BaseModel):
    event_type: str | None
    data: dict


@workflow(trigger_on_event="orders/created")
async def on_order(ctx: WorkflowContext, event: EventPayload) -> None:
    await ctx.step.run("pack", print, f"packing order {event.data['number']}")
    await ctx.step.publish_event("packed", topic="orders/packed", data=event.data, event_type="packed")


@workflow(trigger_on_event="page/viewed", batch_size=3, batch_timeout_seconds=30)
async def on_views(ctx: WorkflowContext, batch: BatchEventPayload) -> None:
    await ctx.step.run("count", print, f"{len(batch.events)} views in one run")
    await ctx.step.publish_event("counted", topic="views/counted", data={"views": len(batch.events)})


@workflow
async def wait_for_packing(ctx: WorkflowContext) -> Received:
    """An event that comes between the start of the run and its wait counts too: `since`."""
    event = await ctx.step.wait_for_event("packed", topic="orders/packed", timeout=60, since=ctx.created_at)
    return Received(event_type=event.event_type, data=event.data)


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        began = datetime.now(UTC)
        waiting = await wait_for_packing.invoke(polos)
        order = events.EventData(event_type="created", data={"number": 7})
        await events.publish(client=polos, topic="orders/created", event_data=order)
        await polos.wait(waiting.id)
        print((await waiting.get(polos))["result"])

        views = [events.EventData(data={"page": page}) for page in ("home", "shop", "cart")]
        await events.batch_publish(client=polos, topic="page/viewed", events=views)
        async for event in events.stream_topic(polos, "views/counted", last_timestamp=began):
            print(f"counted: {event.data['views']}")
            break


if __name__ == "__main__":
    asyncio.run(main())
