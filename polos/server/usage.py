"""What model calls of a project used and cost, over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Query

from polos.journal.usage import UsageQuery, read_usage
from polos.server.fields import Label, Moment, ServicesDep, Word, problems, seconds_of
from polos.server.gate import CallerDep
from polos.usage import UsageGroup, UsageReport, usage_report

router = APIRouter(tags=["usage"])


@router.get("/usage", responses=problems())
async def show_usage(
    caller: CallerDep,
    services: ServicesDep,
    by: Annotated[UsageGroup | None, Query(description="A row for each; without it, the total.")] = None,
    since: Annotated[Moment | None, Query(description="Model calls that ended then or later.")] = None,
    until: Annotated[Moment | None, Query(description="Model calls that ended before.")] = None,
    agent: Annotated[Label | None, Query(description="Id of the agent that spoke.")] = None,
    model: Annotated[Label | None, Query(description="As provider/model.")] = None,
    session: Label | None = None,
    execution_id: Annotated[Word | None, Query(description="A run, with all runs below it.")] = None,
) -> UsageReport:
    """Return what model calls used and cost. Of runs that were removed, whole days in UTC are known."""
    wanted = UsageQuery(
        caller.project,
        by=by,
        since=seconds_of(since),
        until=seconds_of(until),
        agent=agent,
        model=model,
        session=session,
        run_id=execution_id,
    )
    found = await services.journal.call(lambda journal: read_usage(journal, wanted))
    return usage_report(found, grouped=by is not None)
