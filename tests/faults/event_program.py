"""A run that reads a topic event by event."""

from __future__ import annotations

from pydantic import BaseModel

from polos import WorkflowContext, workflow


class Topic(BaseModel):
    """What to read, and how many events of it."""

    topic: str
    number: int


@workflow(id="event-reader")
async def reader(ctx: WorkflowContext, asked: Topic) -> list[int]:
    found, since = [], 0
    for place in range(asked.number):
        event = await ctx.step.wait_for_event(f"event {place}", asked.topic, timeout=600, since=since)
        since = event.sequence_id
        found.append(event.data["number"])
    return found
