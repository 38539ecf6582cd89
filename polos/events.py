"""Events: publish to topics, follow topics, follow what happens in a run as it happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Protocol

from pydantic import BaseModel, Field

from polos.errors import InputError

MAX_TOPIC_CHARACTERS = 400
TREE_TOPICS = "workflow/"  # begins the topics of run trees


class EventData(BaseModel):
    """An event to publish."""

    event_type: str | None = None
    data: dict[str, Any]


class EventPayload(BaseModel):
    """A published event, as a workflow gets it that the event triggered."""

    id: str
    sequence_id: int
    topic: str
    event_type: str | None = None
    data: dict[str, Any]
    created_at: datetime


class EventItem(EventPayload):
    """One event of a batch."""


class BatchEventPayload(BaseModel):
    """Events in order of their sequence ids, as a workflow gets them that is triggered by batches."""

    events: list[EventItem] = Field(default_factory=list)


class StreamEvent(BaseModel):
    """An event as readers get it.

    Attributes:
        id: Where a reader is who has this event: following on "after" it gives exactly what comes next.
        sequence_id: Grows within a topic.
        topic: ``workflow/{root workflow}/{root run}`` for what happens in a run tree.
        created_at: RFC 3339.
    """

    id: str
    sequence_id: int
    topic: str
    event_type: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    created_at: str | None = None


class Event:
    """A stored event."""

    def __init__(
        self,
        id: str,
        sequence_id: int,
        topic: str,
        event_type: str | None = None,
        data: dict[str, Any] | None = None,
        status: str = "valid",
        execution_id: str | None = None,
        attempt_number: int = 0,
        created_at: datetime | None = None,
    ) -> None:
        self.id = id
        self.sequence_id = sequence_id
        self.topic = topic
        self.event_type = event_type
        self.data = data or {}
        self.status = status
        self.execution_id = execution_id
        self.attempt_number = attempt_number
        self.created_at = created_at


class EventClient(Protocol):
    """What this module needs of a client; see `PolosClient`."""

    def follow(
        self, run_id: str, *, after: str | int | None = None, live: bool = False
    ) -> AsyncIterator[StreamEvent]:
        """Return the events of a run tree until the run's own end."""

    def follow_topic(
        self, topic: str, *, after: int | None = None, after_time: datetime | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Return the events of a topic, for ever."""

    async def publish_events(
        self,
        topic: str,
        events: list[EventData],
        *,
        execution_id: str | None = None,
        root_execution_id: str | None = None,
    ) -> list[int]:
        """Publish events, all or none; return their sequence ids."""


async def publish(
    client: EventClient,
    topic: str,
    event_data: EventData,
    execution_id: str | None = None,
    root_execution_id: str | None = None,
) -> int:
    """Publish one event to a topic, which exists from then on; return its sequence id.

    Raises:
        ValueError: The topic is empty or too long.
        ServiceUnavailableError: The database or server does not answer.
    """
    [number] = await batch_publish(client, topic, [event_data], execution_id, root_execution_id)
    return number


async def batch_publish(
    client: EventClient,
    topic: str,
    events: list[EventData],
    execution_id: str | None = None,
    root_execution_id: str | None = None,
) -> list[int]:
    """Publish events in one transaction, in order; return their sequence ids, [] for none."""
    check_topic(topic)
    if not events:
        return []
    return await client.publish_events(
        topic, events, execution_id=execution_id, root_execution_id=root_execution_id
    )


async def stream_topic(
    client: EventClient,
    topic: str,
    last_sequence_id: int | None = None,
    last_timestamp: datetime | None = None,
) -> AsyncIterator[StreamEvent]:
    """Follow a topic for ever: after `last_sequence_id`, else after `last_timestamp`, else from now."""
    check_topic(topic)
    async for event in client.follow_topic(topic, after=last_sequence_id, after_time=last_timestamp):
        yield event


async def stream_workflow(
    client: EventClient,
    workflow_id: str,
    workflow_run_id: str,
    last_sequence_id: int | None = None,
    last_timestamp: datetime | None = None,
) -> AsyncIterator[StreamEvent]:
    """Follow a run and everything it starts, until the run ends.

    After `last_sequence_id` (0 for everything), else after `last_timestamp`; with neither, what still waits
    for an answer, then what happens from now on, or at once the end of a run that has ended.

    Raises:
        ValueError: There is no such run.
    """
    after = last_sequence_id
    if after is None and last_timestamp is not None:
        after = sequence_id_at(last_timestamp)
    async for event in client.follow(workflow_run_id, after=after, live=after is None):
        yield event


def sequence_id_at(moment: datetime) -> int:
    """Return the sequence id, in a run tree's topic, of the last event that could have happened by then."""
    return int(moment.timestamp() * 1000) * 4096 + 4095


def check_topic(topic: object) -> str:
    """Return the topic if it can be one.

    Raises:
        ValueError: It is not a text of 1 to `MAX_TOPIC_CHARACTERS` characters.
    """
    if not isinstance(topic, str) or not 0 < len(topic) <= MAX_TOPIC_CHARACTERS or "\x00" in topic:
        raise InputError(f"A topic is a text of 1 to {MAX_TOPIC_CHARACTERS} characters, not {topic!r:.100}")
    return topic
