"""Queues of a project, over HTTP."""

from fastapi import APIRouter
from pydantic import BaseModel

from polos.journal.queue_lists import list_queues
from polos.queues import QueueInfo
from polos.server.fields import Label, ServicesDep, problems
from polos.server.gate import CallerDep

router = APIRouter(tags=["queues"])


class QueuesShown(BaseModel):
    """Queues that have limits, or runs that wait to be admitted."""

    queues: list[QueueInfo]


@router.get("/queues", responses=problems())
async def show_queues(
    caller: CallerDep, services: ServicesDep, deployment_id: Label | None = None
) -> QueuesShown:
    """Return the queues of a deployment, or of all, by name."""
    return QueuesShown(
        queues=await services.journal.call(
            lambda journal: list_queues(journal, caller.project, deployment=deployment_id)
        )
    )
