"""Runs over HTTP: start, read, wait for, cancel."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, Field

from polos.errors import IdempotencyError, ValueTooLargeError
from polos.handles import ExecutionHandle
from polos.server.errors import ApiError, missing
from polos.server.fields import JsonAnswer, Label, Seconds, ServicesDep, Word, problems
from polos.server.gate import Caller, CallerDep
from polos.server.services import Services
from polos.transport import RunRequest
from polos.usage import UsageTotals

LONGEST_WAIT_SECONDS = 30.0
MOST_IN_A_BATCH = 1_000
router = APIRouter(tags=["runs"])


class RunWanted(BaseModel):
    """A run to start."""

    payload: Any = None
    initial_state: Any = None
    queue_name: Label | None = None
    concurrency_key: Label | None = None
    queue_concurrency_limit: Annotated[int, Field(ge=0, le=2**31)] | None = None
    run_timeout_seconds: Seconds | None = None
    idempotency_key: Label | None = Field(
        None, description="With a key that was used before, the earlier run is returned."
    )
    priority: Annotated[int, Field(ge=0, le=9)] | None = Field(None, description="9 is first, 5 the default.")
    delay_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    debounce_key: Label | None = Field(
        None, description="Calls with one key collapse into one run, with the last payload."
    )
    debounce_seconds: Seconds | None = None


class Belonging(BaseModel):
    """To what a run, or a batch of runs, belongs."""

    deployment_id: Label | None = Field(None, description="By default the newest that has the workflow.")
    session_id: Label | None = None
    user_id: Label | None = None
    parent_execution_id: None = Field(None, description="Runs are started below others by their own code.")
    root_execution_id: None = None
    channel_context: None = Field(None, description="There are no channels in this version.")


class RunBody(RunWanted, Belonging):
    """What starts a run."""


class BatchItem(RunWanted):
    """One run of a batch; what it belongs to comes before what the batch does."""

    workflow_id: Label
    deployment_id: Label | None = None
    session_id: Label | None = None
    user_id: Label | None = None


class BatchBody(Belonging):
    """What starts several runs at once."""

    workflows: Annotated[list[BatchItem], Field(max_length=MOST_IN_A_BATCH)]


class StartedRun(BaseModel):
    """A run that was started, or had been with the same idempotency key."""

    execution_id: str
    created_at: str
    workflow_id: str
    root_execution_id: str
    root_workflow_id: str
    session_id: str | None
    user_id: str | None


class StartedRuns(BaseModel):
    """Runs that were started, in the order of the request."""

    executions: list[StartedRun]


class ExecutionRecord(BaseModel):
    """A run as it stands. `result` is null until it has completed, `completed_at` until it has ended."""

    id: str
    workflow_id: str
    workflow_type: str
    status: str
    payload: Any
    result: Any
    error: str | None
    created_at: str
    started_at: str | None
    completed_at: str | None
    deployment_id: str
    assigned_to_worker: str | None
    parent_execution_id: str | None
    root_execution_id: str
    root_workflow_id: str
    retry_count: int
    step_key: str | None
    queue_name: str
    concurrency_key: str | None
    batch_id: str | None
    session_id: str | None
    user_id: str | None
    output_schema_name: str | None
    cancelled_at: str | None
    cancelled_by: str | None
    run_timeout_seconds: float | None
    initial_state: Any
    final_state: Any
    project_id: str
    usage: UsageTotals = Field(
        description="Of its own model calls, once it has ended; see /usage for its tree."
    )


@router.post("/workflows/batch_run", responses=problems(409))
async def start_batch(caller: CallerDep, services: ServicesDep, body: BatchBody) -> StartedRuns:
    """Start several runs, all or none."""
    requests = [_request(item.workflow_id, item, _belonging(item, body)) for item in body.workflows]
    return StartedRuns(executions=await _start(services, caller, requests))


@router.post("/workflows/{workflow_id:path}/run", responses=problems(409))
async def start_run(
    caller: CallerDep,
    services: ServicesDep,
    workflow_id: Label,
    body: RunBody,
    idempotency_key: Annotated[Label | None, Header()] = None,
) -> StartedRun:
    """Start a run of a workflow, agent or tool. It exists once this answers, whatever happens then."""
    body.idempotency_key = body.idempotency_key or idempotency_key
    [started] = await _start(services, caller, [_request(workflow_id, body, body)])
    return started


def _belonging(item: BatchItem, body: Belonging) -> Belonging:
    return Belonging(
        deployment_id=item.deployment_id or body.deployment_id,
        session_id=item.session_id or body.session_id,
        user_id=item.user_id or body.user_id,
    )


def _request(workflow_id: str, wanted: RunWanted, to: Belonging) -> RunRequest:
    return RunRequest(
        workflow_id=workflow_id,
        payload=wanted.payload,
        initial_state=wanted.initial_state,
        queue_name=wanted.queue_name,
        queue_concurrency_limit=wanted.queue_concurrency_limit,
        concurrency_key=wanted.concurrency_key,
        session_id=to.session_id,
        user_id=to.user_id,
        run_timeout_seconds=wanted.run_timeout_seconds,
        idempotency_key=wanted.idempotency_key,
        priority=wanted.priority,
        delay_seconds=wanted.delay_seconds,
        debounce_key=wanted.debounce_key,
        debounce_seconds=wanted.debounce_seconds,
        deployment_id=to.deployment_id,
    )


async def _start(services: Services, caller: Caller, requests: Sequence[RunRequest]) -> list[StartedRun]:
    if not requests:
        return []
    try:
        handles = await services.transport(caller.project).start_runs(requests)
    except IdempotencyError as error:
        raise ApiError(409, str(error)) from error
    except ValueTooLargeError as error:
        raise ApiError(413, str(error)) from error
    except (TypeError, ValueError, RecursionError) as error:  # what cannot be stored
        raise ApiError(400, str(error)) from error
    return [started_run(handle) for handle in handles]


def started_run(handle: ExecutionHandle) -> StartedRun:
    """Return the answer that tells of a run that was started."""
    return StartedRun(execution_id=handle.id, **handle.model_dump(include=set(StartedRun.model_fields)))


@router.get("/executions/{execution_id}", response_model=ExecutionRecord, responses=problems(404))
async def read_execution(
    caller: CallerDep,
    services: ServicesDep,
    execution_id: Word,
    wait: Annotated[
        float,
        Query(ge=0, allow_inf_nan=False, description="Seconds to wait for its end, 30 at most."),
    ] = 0.0,
) -> JsonAnswer:
    """Return how a run stands; with `wait`, once it has ended or that time is over."""
    record = await _ended(services, caller, execution_id, wait) if wait else None
    return JsonAnswer(record or await record_of_run(services, caller, execution_id))


async def _ended(services: Services, caller: Caller, execution_id: str, wait: float) -> dict[str, Any] | None:
    try:
        async with asyncio.timeout(min(wait, LONGEST_WAIT_SECONDS)):
            return await services.transport(caller.project).ended_run(execution_id)
    except TimeoutError:
        return None


async def record_of_run(services: Services, caller: Caller, execution_id: str) -> dict[str, Any]:
    """Return the record of a run of the caller's project.

    Raises:
        ApiError: There is none.
    """
    record = await services.transport(caller.project).read_run(execution_id)
    if record is None:
        raise missing(f"execution {execution_id!r}", caller.project)
    return record


@router.post("/executions/{execution_id}/cancel", response_model=ExecutionRecord, responses=problems(404))
async def cancel_execution(caller: CallerDep, services: ServicesDep, execution_id: Word) -> JsonAnswer:
    """Cancel a run and all it started; return how it stands then. One that has ended is refused."""
    was_going = await services.transport(caller.project).cancel_run(execution_id)
    record = await record_of_run(services, caller, execution_id)
    if not was_going:
        raise ApiError(400, f"Execution {execution_id} has ended ({record['status']}); nothing to cancel")
    return JsonAnswer(record)
