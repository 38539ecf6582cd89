"""Events: workflows that events start, one by one or in batches, and a run that waits for one."""

import asyncio

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


@workflow
async def wait_for_packing(ctx: WorkflowContext) -> Received:
    event = await ctx.step.wait_for_event("packed", topic="orders/packed", timeout=60)
    return Received(event_type=event.event_type, data=event.data)


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        waiting = await wait_for_packing.invoke(polos)
        while (await waiting.get(polos))["status"] in {"queued", "claimed"}:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)  # it is in its wait by now; with since= it would not matter
        order = events.EventData(event_type="created", data={"number": 7})
        await events.publish(client=polos, topic="orders/created", event_data=order)
        views = [events.EventData(data={"page": page}) for page in ("home", "shop", "cart")]
        await events.batch_publish(client=polos, topic="page/viewed", events=views)
        while (found := await waiting.get(polos))["status"] != "completed":
            await asyncio.sleep(0.1)
        print(found["result"])
        while (await polos.get_execution(waiting.id))["status"] != "completed":
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main())
