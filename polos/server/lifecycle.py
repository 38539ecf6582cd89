"""Runs that go on over HTTP: a retry of what has ended, a fork of what was recorded."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from polos.errors import IdempotencyError, ValueTooLargeError
from polos.server.errors import ApiError
from polos.server.fields import JsonAnswer, Label, ServicesDep, Word, problems
from polos.server.gate import CallerDep
from polos.server.runs import ExecutionRecord, StartedRun, record_of_run, started_run
from polos.transport import ForkRequest

router = APIRouter(tags=["runs"])


class ForkBody(BaseModel):
    """From where a new run goes on."""

    from_step: Word | None = Field(
        None, description="Key of the first step that is executed again; by default all outcomes are taken."
    )
    input: Any = Field(None, description="Instead of the run's own, if it is not null.")
    patch: dict[str, Any] = Field({}, description="Values instead of recorded outcomes, by step key.")
    session_id: Label | None = None
    user_id: Label | None = None
    idempotency_key: Label | None = None
    deployment_id: Label | None = Field(None, description="By default the one of the run.")


@router.post("/executions/{execution_id}/fork", responses=problems(404, 409))
async def fork_execution(
    caller: CallerDep, services: ServicesDep, execution_id: Word, body: ForkBody
) -> StartedRun:
    """Start a run that goes on from a copy of this one's journal."""
    await record_of_run(services, caller, execution_id)
    request = ForkRequest(execution_id=execution_id, **body.model_dump())
    try:
        return started_run(await services.transport(caller.project).fork_run(request))
    except IdempotencyError as error:
        raise ApiError(409, str(error)) from error
    except ValueTooLargeError as error:
        raise ApiError(413, str(error)) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ApiError(400, str(error)) from error


@router.post("/executions/{execution_id}/retry", response_model=ExecutionRecord, responses=problems(404))
async def retry_execution(caller: CallerDep, services: ServicesDep, execution_id: Word) -> JsonAnswer:
    """Let a failed or cancelled run go on from its journal; return how it stands then."""
    await record_of_run(services, caller, execution_id)
    try:
        await services.transport(caller.project).retry_run(execution_id)
    except ValueError as error:
        raise ApiError(400, str(error)) from error
    return JsonAnswer(await record_of_run(services, caller, execution_id))
