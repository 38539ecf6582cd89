"""Waits of runs for people: what is asked, and the answer."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from polos import serialization
from polos.errors import AnswerError, InputError, ValueTooLargeError
from polos.journal.questions import READ_QUESTIONS, Question, questions_of
from polos.records import api_time
from polos.server.errors import ApiError, missing
from polos.server.fields import JsonAnswer, Label, Limit, ServicesDep, Word, problems
from polos.server.gate import Caller, CallerDep
from polos.server.services import Services
from polos.step_names import shown
from polos.waits import Wait

_STATUS = {"running": "waiting", "completed": "resolved", "failed": "expired"}
router = APIRouter(tags=["approvals"])


class Approval(BaseModel):
    """A wait for an answer: `waiting`, `resolved` with `answer`, or `expired` (timed out or cancelled).

    `kept`: the answer came before the question, which will get it.
    """

    execution_id: str
    step_key: str
    status: str
    data: Any = Field(None, description="What is asked.")
    answer: Any = None
    answered_by: str | None = Field(None, description="As far as that is known.")
    asked_at: str | None = None
    resolved_at: str | None = None
    expires_at: str | None = None
    suspended_execution_id: str | None = Field(None, description="The run of the tree that waits.")


class OpenApproval(BaseModel):
    """A question that waits for its answer."""

    execution_id: str
    workflow_id: str
    step_key: str
    session_id: str | None
    data: Any = Field(description="What is asked.")
    asked_at: str | None
    expires_at: str | None
    suspended_execution_id: str = Field(description="The run of the tree that waits.")


class Answer(BaseModel):
    """An answer."""

    data: dict[str, Any]
    answered_by: Word | None = Field(None, description="Who answers; else the name of the API key.")


class Resume(Answer):
    """An answer to what a run waits for under a key."""

    step_key: Label
    suspended_execution_id: Word | None = Field(
        None,
        description="The run that waits, where several do under one key; else the one that waits longest.",
    )


@router.get("/approvals", response_model=list[OpenApproval], responses=problems())
async def list_approvals(
    caller: CallerDep, services: ServicesDep, session_id: Word | None = None, limit: Limit = 50
) -> JsonAnswer:
    """Return the questions that wait for an answer, the oldest first."""
    wanted = questions_of(caller.project, session_id=session_id, limit=limit)
    rows = await services.journal.call(lambda journal: journal.read(READ_QUESTIONS, wanted))
    return JsonAnswer([_open(Question(*row)).model_dump(mode="json") for row in rows])


@router.get("/approvals/{execution_id}/{step_key:path}", response_model=Approval, responses=problems(404))
async def read_approval(
    caller: CallerDep, services: ServicesDep, execution_id: Word, step_key: Label
) -> JsonAnswer:
    """Return what a run asks under a key, or asked last. `execution_id` is the root run's."""
    return JsonAnswer(_shown(execution_id, step_key, await _wait(services, caller, execution_id, step_key)))


@router.post(
    "/approvals/{execution_id}/{step_key:path}/submit",
    response_model=Approval,
    responses={**problems(404, 409, 422), 202: {"model": Approval}},
)
async def submit_approval(
    caller: CallerDep, services: ServicesDep, execution_id: Word, step_key: Label, body: Answer
) -> JsonAnswer:
    """Answer. The first answer counts: 409 if there was one, or the time for it is over.

    An answer to what was not asked yet is kept: 202.
    """
    return await _answered(services, caller, execution_id, step_key, body, None)


@router.post(
    "/executions/{execution_id}/resume",
    response_model=Approval,
    responses={**problems(404, 409, 422), 202: {"model": Approval}},
)
async def resume_execution(
    caller: CallerDep, services: ServicesDep, execution_id: Word, body: Resume
) -> JsonAnswer:
    """Answer what a run waits for, as its code calls it."""
    only = body.suspended_execution_id
    return await _answered(services, caller, execution_id, body.step_key, body, only)


async def _wait(services: Services, caller: Caller, execution_id: str, step_key: str) -> Wait:
    found = await _find(services, caller, execution_id, step_key)
    if found is None:
        raise missing(f"wait {step_key!r} of execution {execution_id!r}", caller.project)
    return found


async def _find(services: Services, caller: Caller, execution_id: str, step_key: str) -> Wait | None:
    if caller.approval not in {None, (execution_id, step_key)}:
        raise ApiError(403, "This link is for another question")
    return await services.direct(caller.project).find_wait(execution_id, step_key)


async def _answered(
    services: Services,
    caller: Caller,
    execution_id: str,
    step_key: str,
    body: Answer,
    only: str | None,
) -> JsonAnswer:
    await _find(services, caller, execution_id, step_key)  # refuses links for other questions
    await _answer(services, caller, execution_id, step_key, body, only)
    found = await _find(services, caller, execution_id, step_key)
    if found is not None:
        return JsonAnswer(_shown(execution_id, step_key, found))
    kept = {"execution_id": execution_id, "step_key": step_key, "status": "kept", "answer": body.data}
    return JsonAnswer(Approval(**kept).model_dump(mode="json"), status_code=202)


async def _answer(
    services: Services,
    caller: Caller,
    execution_id: str,
    step_key: str,
    body: Answer,
    only: Annotated[str | None, "the run that waits"],
) -> None:
    transport = services.direct(caller.project)
    try:
        by = body.answered_by or caller.key_name
        answered = await transport.resume_run(execution_id, step_key, body.data, run_id=only, answered_by=by)
    except ValueTooLargeError as error:
        raise ApiError(413, str(error)) from error
    except AnswerError as error:
        raise ApiError(422, str(error)) from error
    except InputError as error:
        raise missing(f"execution {execution_id!r}", caller.project) from error
    except (TypeError, ValueError, RecursionError) as error:  # what cannot be stored
        raise ApiError(400, str(error)) from error
    if not answered:
        raise ApiError(
            409, f"{step_key!r} waits for no answer (any more); GET the approval for what became of it"
        )


def _open(question: Question) -> OpenApproval:
    return OpenApproval(
        execution_id=question.root_id,
        workflow_id=question.root_name,
        step_key=shown(question.step),
        session_id=question.session_id,
        data=serialization.loads(question.asked),
        asked_at=api_time(question.asked_at),
        expires_at=api_time(question.expires_at),
        suspended_execution_id=question.run_id,
    )


def _shown(execution_id: str, step_key: str, wait: Wait) -> dict[str, Any]:
    return {
        "execution_id": execution_id,
        "step_key": step_key,
        "status": _STATUS[wait.status],
        "data": wait.data,
        "answer": wait.answer,
        "answered_by": wait.answered_by,
        "asked_at": api_time(wait.asked_at),
        "resolved_at": api_time(wait.ended_at),
        "expires_at": api_time(wait.expires_at),
        "suspended_execution_id": wait.run_id,
    }
