"""Schedules over HTTP: make, change, read and run them."""

from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from polos.cron import KEY
from polos.errors import InputError
from polos.handles import ExecutionHandle
from polos.schedules import Schedule, Schedules, Status
from polos.server.errors import ApiError, missing
from polos.server.fields import Label, ServicesDep, Word, problems
from polos.server.gate import Caller, CallerDep
from polos.server.runs import StartedRun, started_run
from polos.server.services import Services

router = APIRouter(tags=["schedules"])


class ScheduleWanted(BaseModel):
    """A schedule to make, or to change: there is one for each workflow and key."""

    workflow_id: Label
    cron: Word
    timezone: Word = "UTC"
    key: Label = KEY
    catch_up: Literal["skip", "one", "all"] = "one"


class ScheduleMade(BaseModel):
    """The id of a schedule, which stays the same for its workflow and key."""

    schedule_id: str


class ScheduleShown(BaseModel):
    """A schedule as it stands. `next_run_at` is null unless it is active."""

    id: str
    workflow_id: str
    cron: str
    timezone: str
    key: str
    status: Status
    catch_up: str
    declared_by: str | None
    deployment_id: str | None
    last_run_at: datetime | None
    last_run_id: str | None
    next_run_at: datetime | None
    created_at: datetime
    updated_at: datetime


class ScheduleList(BaseModel):
    """Schedules, by workflow and key."""

    schedules: list[ScheduleShown]


class ScheduledWorkflows(BaseModel):
    """The workflows that have schedules."""

    workflow_ids: list[str]


@router.post("/schedules", responses=problems())
async def create_schedule(caller: CallerDep, services: ServicesDep, body: ScheduleWanted) -> ScheduleMade:
    """Make a schedule, or change the one with this workflow and key."""
    try:
        made = await _of(services, caller).create(
            body.workflow_id, body.cron, body.timezone, body.key, catch_up=body.catch_up
        )
    except ValueError as error:
        raise ApiError(400, str(error)) from error
    return ScheduleMade(schedule_id=made)


@router.get("/schedules", responses=problems())
async def list_schedules(
    caller: CallerDep, services: ServicesDep, workflow_id: Label | None = None
) -> ScheduleList:
    """Return the schedules of a workflow, or of all."""
    found = await _of(services, caller).list(workflow_id)
    return ScheduleList(schedules=[_shown(one) for one in found])


@router.get("/schedules/workflows", responses=problems())
async def list_scheduled_workflows(caller: CallerDep, services: ServicesDep) -> ScheduledWorkflows:
    """Return the workflows that have schedules."""
    found = await _of(services, caller).list()
    return ScheduledWorkflows(workflow_ids=sorted({one.workflow_id for one in found}))


@router.get("/schedules/workflows/{workflow_id:path}", responses=problems())
async def list_schedules_of_workflow(
    caller: CallerDep, services: ServicesDep, workflow_id: Label
) -> ScheduleList:
    """Return the schedules of a workflow."""
    return await list_schedules(caller, services, workflow_id)


@router.get("/schedules/{schedule_id}", responses=problems(404))
async def read_schedule(caller: CallerDep, services: ServicesDep, schedule_id: Word) -> ScheduleShown:
    """Return a schedule."""
    return await _known(services, caller, schedule_id)


@router.post("/schedules/{schedule_id}/pause", responses=problems(404))
async def pause_schedule(caller: CallerDep, services: ServicesDep, schedule_id: Word) -> ScheduleShown:
    """Start nothing more until it is resumed."""
    await _known(services, caller, schedule_id)
    return _shown(await _of(services, caller).pause(schedule_id))


@router.post("/schedules/{schedule_id}/resume", responses=problems(404))
async def resume_schedule(caller: CallerDep, services: ServicesDep, schedule_id: Word) -> ScheduleShown:
    """Go on with the next time; what fell into the pause is not made up for."""
    await _known(services, caller, schedule_id)
    return _shown(await _of(services, caller).resume(schedule_id))


@router.post("/schedules/{schedule_id}/trigger", responses=problems(404))
async def trigger_schedule(caller: CallerDep, services: ServicesDep, schedule_id: Word) -> StartedRun:
    """Start a run of it now."""
    await _known(services, caller, schedule_id)
    handle: ExecutionHandle = await _of(services, caller).trigger(schedule_id)
    return started_run(handle)


@router.delete("/schedules/{schedule_id}", status_code=204, responses=problems(404))
async def delete_schedule(caller: CallerDep, services: ServicesDep, schedule_id: Word) -> Response:
    """Forget a schedule; runs it started go on."""
    await _known(services, caller, schedule_id)
    await _of(services, caller).delete(schedule_id)
    return Response(status_code=204)


def _of(services: Services, caller: Caller) -> Schedules:
    return services.transport(caller.project).schedules


async def _known(services: Services, caller: Caller, schedule_id: str) -> ScheduleShown:
    try:
        return _shown(await _of(services, caller).get(schedule_id))
    except InputError as error:
        raise missing(f"schedule {schedule_id!r}", caller.project) from error


def _shown(schedule: Schedule) -> ScheduleShown:
    return ScheduleShown(**dict(schedule))
