"""Who serves runs: live workers and deployments of a project, over HTTP."""

import asyncio
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from polos.journal.offers import read_deployment, read_live_workers
from polos.records import api_time
from polos.server.errors import missing
from polos.server.fields import Label, ServicesDep, problems
from polos.server.gate import Caller, CallerDep
from polos.server.services import Services

router = APIRouter(tags=["workers"])


class ActiveWorkers(BaseModel):
    """Workers that live and take runs."""

    worker_ids: list[str]


class WorkerStatus(BaseModel):
    """How many workers live and take runs."""

    online_count: int
    has_workers: bool


class DeploymentShown(BaseModel):
    """A deployment: active while a live worker serves it."""

    id: str
    project_id: str
    status: Literal["active", "inactive"]
    created_at: str


@router.get("/workers/active", responses=problems())
async def list_active_workers(caller: CallerDep, services: ServicesDep) -> ActiveWorkers:
    """Return the ids of live workers, the oldest first."""
    return ActiveWorkers(worker_ids=[worker_id for worker_id, _ in await _live(services, caller)])


@router.get("/workers/status", responses=problems())
async def read_worker_status(
    caller: CallerDep,
    services: ServicesDep,
    deployment_id: Label | None = None,
    workflow_id: Label | None = None,
) -> WorkerStatus:
    """Return how many workers live, of a deployment or of all; none if nobody serves `workflow_id`."""
    live = await _live(services, caller)
    count = sum(1 for _, deployment in live if deployment_id in {None, deployment})
    if workflow_id is not None and not await _is_served(services, caller, workflow_id, deployment_id):
        count = 0
    return WorkerStatus(online_count=count, has_workers=count > 0)


@router.get("/deployments/{deployment_id:path}", responses=problems(404))
async def show_deployment(caller: CallerDep, services: ServicesDep, deployment_id: Label) -> DeploymentShown:
    """Return a deployment."""
    since = await services.journal.call(
        lambda journal: read_deployment(journal, caller.project, deployment_id)
    )
    if since is None:
        raise missing(f"deployment {deployment_id!r}", caller.project)
    is_served = any(deployment == deployment_id for _, deployment in await _live(services, caller))
    return DeploymentShown(
        id=deployment_id,
        project_id=caller.project,
        status="active" if is_served else "inactive",
        created_at=api_time(since) or "",
    )


async def _is_served(services: Services, caller: Caller, workflow_id: str, deployment_id: str | None) -> bool:
    def find() -> bool:
        services.backend.connect()
        found = services.backend.offers.find_deployment(caller.project, workflow_id, None, deployment_id)
        return found.is_served

    return await asyncio.to_thread(find)


async def _live(services: Services, caller: Caller) -> list[tuple[str, str]]:
    silence = services.settings.silence_limit_seconds
    return await services.journal.call(
        lambda journal: read_live_workers(journal, caller.project, silence_limit_seconds=silence)
    )
