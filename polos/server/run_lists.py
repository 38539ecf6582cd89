"""Lists of runs over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from polos import serialization
from polos.journal.run_pages import RunPage, place_at, read_page
from polos.journal.states import RunStatus
from polos.records import api_time
from polos.server.errors import ApiError
from polos.server.fields import (
    JsonAnswer,
    Label,
    Limit,
    Moment,
    Offset,
    ServicesDep,
    Word,
    problems,
    seconds_of,
)
from polos.server.gate import CallerDep

router = APIRouter(tags=["runs"])


class ListedRun(BaseModel):
    """A run in a list. What `omitted` names is too large for one: read the execution for it."""

    id: str
    root_execution_id: str
    parent_execution_id: str | None
    workflow_id: str
    workflow_type: str
    deployment_id: str
    session_id: str | None
    user_id: str | None
    created_at: str
    started_at: str | None
    completed_at: str | None
    status: str
    payload: Any
    result: Any
    error: str | None
    total_tokens: int
    cost: float | None
    omitted: list[str]


@router.get("/workflows/runs", response_model=list[ListedRun], responses=problems())
async def list_runs(
    caller: CallerDep,
    services: ServicesDep,
    workflow_type: Label | None = None,
    workflow_id: Label | None = None,
    status: Annotated[list[RunStatus] | None, Query(description="May be given several times.")] = None,
    session_id: Label | None = None,
    user_id: Label | None = None,
    roots_only: Annotated[bool, Query(description="Only runs that no other run started.")] = False,
    start_time: Annotated[Moment | None, Query(description="Created then or later.")] = None,
    end_time: Annotated[Moment | None, Query(description="Created before.")] = None,
    limit: Limit = 50,
    offset: Offset = 0,
    cursor: Annotated[Word | None, Query(description="X-Next-Cursor of the page before.")] = None,
) -> JsonAnswer:
    """Return runs, the newest first. The header ``X-Next-Cursor`` says where more begin, if there are."""
    wanted = RunPage(
        project=caller.project,
        limit=limit,
        offset=offset,
        statuses=[each.value for each in status or ()],
        kind=workflow_type,
        name=workflow_id,
        session_id=session_id,
        user_id=user_id,
        roots_only=roots_only,
        since=seconds_of(start_time),
        until=seconds_of(end_time),
        after=None if cursor is None else _place(cursor),
    )
    runs, following = await services.journal.call(lambda journal: read_page(journal, wanted))
    more = {} if following is None else {"X-Next-Cursor": following}
    return JsonAnswer([_listed(run) for run in runs], headers=more)


def _place(cursor: str) -> tuple[float, str]:
    try:
        return place_at(cursor)
    except ValueError as error:
        raise ApiError(400, str(error)) from error


def _listed(run: dict[str, Any]) -> ListedRun:
    renamed = {"input": "payload", "output": "result"}
    return ListedRun(
        id=run["id"],
        root_execution_id=run["root_id"],
        parent_execution_id=run["parent_id"],
        workflow_id=run["name"],
        workflow_type=run["kind"],
        deployment_id=run["deployment"],
        session_id=run["session_id"],
        user_id=run["user_id"],
        created_at=api_time(run["created_at"]) or "",
        started_at=api_time(run["started_at"]),
        completed_at=api_time(run["finished_at"]),
        status=run["status"],
        payload=value_of(run["input"]),
        result=value_of(run["output"]),
        error=run["error"],
        total_tokens=run["total_tokens"],
        cost=run["cost"],
        omitted=[renamed[name] for name in run["omitted"]],
    )


def value_of(text: str | None) -> Any:
    """Return a value of the journal as plain JSON data."""
    return None if text is None else serialization.loads(text)
