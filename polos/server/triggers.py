"""Event triggers over HTTP: which workflows events start, and entering one for what a worker offers."""

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import AfterValidator, BaseModel, Field

from polos.events import TREE_TOPICS
from polos.journal.database import Connection
from polos.journal.offers import read_offered
from polos.journal.statements import Rows
from polos.journal.triggers import READ_TRIGGERS, NewTrigger, declare_trigger, trigger_record
from polos.journal.triggers import delete_trigger as forget
from polos.records import api_time
from polos.routes import DEFAULT_ROUTE
from polos.serialization import loads
from polos.server.errors import ApiError, missing
from polos.server.events import Topic
from polos.server.fields import Label, Seconds, ServicesDep, problems
from polos.server.gate import CallerDep

MOST_IN_A_BATCH = 10_000
router = APIRouter(tags=["events"])


def _of_programs(topic: str) -> str:
    if topic.startswith(TREE_TOPICS):
        raise ValueError(f"topics that begin with {TREE_TOPICS!r} are of single runs")
    return topic


class TriggerWanted(BaseModel):
    """A trigger to enter. Workers enter those that their code declares by themselves."""

    workflow_id: Label
    event_topic: Annotated[Topic, AfterValidator(_of_programs)]
    deployment_id: Label | None = Field(None, description="By default the newest that has the workflow.")
    batch_size: Annotated[int, Field(ge=1, le=MOST_IN_A_BATCH)] = 1
    batch_timeout_seconds: Seconds | None = None
    queue_name: Label | None = None


class TriggerShown(BaseModel):
    """A trigger. `last_sequence_id` is of the last event it has read, `pending` how many come after it."""

    workflow_id: str
    event_topic: str
    deployment_id: str
    batch_size: int
    batch_timeout_seconds: float | None
    queue_name: str
    declared_by: str | None
    is_active: bool
    last_sequence_id: int
    pending: int
    created_at: str


class TriggerList(BaseModel):
    """Triggers, by topic and workflow."""

    event_triggers: list[TriggerShown]


@router.post("/event-triggers/register", responses=problems())
async def register_trigger(caller: CallerDep, services: ServicesDep, body: TriggerWanted) -> TriggerShown:
    """Let events of a topic start a workflow that a live worker offers, from now on."""
    silence = services.settings.silence_limit_seconds

    def register(journal: Connection) -> Rows:
        offered = read_offered(journal, caller.project, silence_limit_seconds=silence, name=body.workflow_id)
        for offer in offered:
            if body.deployment_id in {None, offer["deployment"]}:
                details = loads(offer["details"] or "{}")
                new = NewTrigger(
                    project=caller.project,
                    workflow=body.workflow_id,
                    topic=body.event_topic,
                    deployment=offer["deployment"],
                    kind=offer["kind"],
                    queue=body.queue_name or body.workflow_id,
                    route=details.get("route", DEFAULT_ROUTE),
                    batch_size=body.batch_size,
                    batch_timeout_seconds=body.batch_timeout_seconds,
                )
                return journal.commit([declare_trigger(new, silence=silence)])[0]
        raise ApiError(400, f"Workflow {body.workflow_id!r} is unknown: no live worker offers it")

    await services.journal.call(register)
    listed = (await list_triggers(caller, services)).event_triggers
    key = (body.workflow_id, body.event_topic)
    return next(one for one in listed if (one.workflow_id, one.event_topic) == key)


@router.delete("/event-triggers", status_code=204, responses=problems(404))
async def delete_trigger(
    caller: CallerDep, services: ServicesDep, workflow_id: Label, event_topic: Topic
) -> Response:
    """Forget a trigger and its place in the topic. One that code declares comes back with the next worker."""
    unit = forget(caller.project, workflow_id, event_topic)
    [rows] = await services.journal.call(lambda journal: journal.commit([unit]))
    if not rows:
        raise missing(f"trigger of {workflow_id!r} by {event_topic!r}", caller.project)
    return Response(status_code=204)


@router.get("/event-triggers", responses=problems())
async def list_triggers(caller: CallerDep, services: ServicesDep) -> TriggerList:
    """Return which workflows are started by events of which topics."""
    rows = await services.journal.call(
        lambda journal: journal.read(READ_TRIGGERS, {"project": caller.project})
    )
    return TriggerList(event_triggers=[_shown(trigger_record(row)) for row in rows])


def _shown(row: dict[str, object]) -> TriggerShown:
    cursor, head = int(str(row["cursor"])), int(str(row["head"] or 0))
    return TriggerShown.model_validate(
        {
            "workflow_id": row["workflow"],
            "event_topic": row["topic"],
            "deployment_id": row["deployment"],
            "batch_size": row["batch_size"],
            "batch_timeout_seconds": row["batch_timeout_seconds"],
            "queue_name": row["queue"],
            "declared_by": row["declared_by"],
            "is_active": bool(row["is_active"]),
            "last_sequence_id": cursor,
            "pending": max(head - cursor, 0),
            "created_at": api_time(float(str(row["created_at"]))),
        }
    )
