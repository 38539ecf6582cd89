"""Events over HTTP: publish to a topic, read what is recorded, and follow a topic or a run as it goes on."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from starlette.responses import Response

from polos.events import MAX_TOPIC_CHARACTERS, EventData, StreamEvent, sequence_id_at
from polos.server.errors import ApiError, missing
from polos.server.fields import JsonAnswer, Label, Moment, SequenceId, ServicesDep, Word, problems, storable
from polos.server.gate import Caller, CallerDep
from polos.server.services import Services
from polos.server.sse import EventStream

MOST_EVENTS = 1_000
BEGIN_SECONDS = 0.25  # within which a stream says that it cannot begin, as it mostly can at once
RUN_TOPIC = "workflow/"
_AS_JSON: dict[str, Any] = {
    "description": "A problem",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
router = APIRouter(tags=["events"])
Topic = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_TOPIC_CHARACTERS), AfterValidator(storable)
]


class NewEvent(BaseModel):
    """An event to publish."""

    event_type: Label | None = None
    data: dict[str, Any] = {}
    execution_id: Word | None = None


class PublishBody(BaseModel):
    """Events to publish to one topic, all or none."""

    topic: Topic
    events: Annotated[list[NewEvent], Field(max_length=MOST_EVENTS)]
    execution_id: Word | None = None
    root_execution_id: Word | None = None


class Published(BaseModel):
    """The numbers that the events have in their topic, in order."""

    sequence_ids: list[int]
    created_at: str


class EventPage(BaseModel):
    """Events of a topic. `next_sequence_id` is the position to ask for what follows."""

    events: list[StreamEvent]
    next_sequence_id: int | None
    has_more: bool


@router.post("/events/publish", responses=problems())
async def publish(caller: CallerDep, services: ServicesDep, body: PublishBody) -> Published:
    """Publish events. They are recorded once this answers."""
    publishers = {event.execution_id for event in body.events if event.execution_id is not None}
    if len(publishers | {body.execution_id} - {None}) > 1:
        raise ApiError(400, "The events name several executions; publish those of each in a request")
    try:
        numbers = await services.transport(caller.project).publish_events(
            body.topic,
            [EventData(event_type=event.event_type, data=event.data) for event in body.events],
            execution_id=body.execution_id or next(iter(publishers), None),
            root_execution_id=body.root_execution_id,
        )
    except (TypeError, ValueError, RecursionError) as error:  # what cannot be stored
        raise ApiError(400, str(error)) from error
    return Published(sequence_ids=numbers, created_at=datetime.now(UTC).isoformat())


@router.get("/events", response_model=EventPage, responses=problems())
async def list_events(
    caller: CallerDep,
    services: ServicesDep,
    topic: Topic,
    last_sequence_id: SequenceId = 0,
    last_timestamp: Annotated[Moment | None, Query(description="Only events after it.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_EVENTS)] = 100,
    sort: Literal["asc", "desc"] = "asc",
) -> JsonAnswer:
    """Return events of a topic that are recorded, after a sequence id; sorted ``desc``, the newest first."""
    try:
        found = await services.transport(caller.project).list_events(
            topic, after=last_sequence_id, limit=limit + 1, descending=sort == "desc"
        )
    except ValueError as error:
        raise ApiError(400, str(error)) from error
    page = found[:limit]
    return JsonAnswer(
        EventPage(
            events=[event for event in page if _is_after(event, last_timestamp)],
            next_sequence_id=page[-1].sequence_id if page else None,
            has_more=len(found) > limit,
        )
    )


@router.get(
    "/events/stream",
    status_code=200,
    response_class=EventStream,
    responses={
        200: {"description": "Server-sent events", "content": {"text/event-stream": {}}},
        204: {"description": "The run has ended, and all its events were seen"},
        **dict.fromkeys(problems(404), _AS_JSON),
    },
)
async def stream(
    caller: CallerDep,
    services: ServicesDep,
    topic: Topic | None = None,
    workflow_id: Label | None = None,
    workflow_run_id: Word | None = None,
    last_event_id: Word | None = None,
    last_sequence_id: Annotated[SequenceId | None, Query(description="0 is the beginning.")] = None,
    last_timestamp: Moment | None = None,
    live: Annotated[
        bool, Query(description="Of a run: from now, with what is still asked of people.")
    ] = False,
    last_event_id_header: Annotated[Word | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """Follow a topic, or a run and all that it starts, until the run's end.

    Without a position a run's stream begins with the run, a topic's now. Every frame has an ``id``; to go on
    after it, send it as ``Last-Event-ID``.
    """
    run_id = workflow_run_id or _run_of(topic)
    position = last_event_id or last_event_id_header or last_sequence_id
    if run_id is not None:
        return await _run_stream(services, caller, run_id, position, last_timestamp, live=live)
    if topic is None:
        raise ApiError(400, "Name what to follow: topic, or workflow_id and workflow_run_id")
    transport = services.transport(caller.project)
    events = transport.follow_topic(topic, after=_number(position), after_time=last_timestamp)
    return await _begun(services, caller, events, patience_seconds=BEGIN_SECONDS)


async def _run_stream(
    services: Services,
    caller: Caller,
    run_id: str,
    position: str | int | None,
    after_time: datetime | None,
    *,
    live: bool,
) -> Response:
    transport = services.transport(caller.project)
    record = await transport.read_run(run_id)
    if record is None:
        raise missing(f"execution {run_id!r}", caller.project)
    if position is None and after_time is not None:
        position = sequence_id_at(after_time)
    events = transport.follow(run_id, after=position, live=live and position is None)
    has_ended = record["completed_at"] is not None
    patience = services.settings.stream_keepalive_seconds if has_ended else BEGIN_SECONDS
    return await _begun(services, caller, events, patience_seconds=patience)


async def _begun(
    services: Services, caller: Caller, events: AsyncIterator[StreamEvent], *, patience_seconds: float
) -> Response:
    """Return the stream once it has begun, so that a position that is none gets an answer of its own."""
    first = asyncio.ensure_future(anext(events))
    try:
        await asyncio.wait({first}, timeout=patience_seconds)
    except asyncio.CancelledError:
        first.cancel()
        raise
    if first.done():
        problem = first.exception()
        if isinstance(problem, StopAsyncIteration):
            return Response(status_code=204)
        if isinstance(problem, ValueError):
            raise ApiError(400, str(problem)) from problem
        if problem is not None:
            raise problem
    return EventStream(services, caller, first, events)


def _is_after(event: StreamEvent, moment: datetime | None) -> bool:
    if moment is None or event.created_at is None:
        return True
    return datetime.fromisoformat(event.created_at) > moment


def _run_of(topic: str | None) -> str | None:
    """Return the id of the run whose tree a topic is of, None for a topic of programs."""
    return topic.rpartition("/")[2] if topic is not None and topic.startswith(RUN_TOPIC) else None


def _number(position: str | int | None) -> int | None:
    """Return a position in a topic.

    Raises:
        ApiError: It is none.
    """
    if not isinstance(position, str):
        return position
    if not (position.isascii() and position.isdigit() and len(position) < 19):
        raise ApiError(400, f"last_event_id {position[:80]!r} is no position in a topic")
    return int(position)
