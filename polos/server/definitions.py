"""What can be run: the agents, tools and workflows that live workers offer, over HTTP."""

import json
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query
from pydantic import BaseModel

from polos.journal.offers import read_offered
from polos.records import api_time
from polos.server.errors import missing
from polos.server.fields import Label, ServicesDep, problems
from polos.server.gate import Caller, CallerDep
from polos.server.services import Services

T = TypeVar("T")
router = APIRouter(tags=["definitions"])
Deployment = Annotated[Label | None, Query(description="Of this deployment; by default of all.")]


class AgentShown(BaseModel):
    """An agent that a live worker offers. What an older worker did not tell is null."""

    id: str
    deployment_id: str
    description: str | None = None
    provider: str | None = None
    model: str | None = None
    system_prompt: str | None = None
    tools: list[dict[str, Any]] = []
    temperature: float | None = None
    max_output_tokens: int | None = None
    config: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    created_at: str
    updated_at: str


class ToolShown(BaseModel):
    """A tool that a live worker offers."""

    id: str
    deployment_id: str
    tool_type: str = "default"
    description: str | None = None
    parameters: dict[str, Any] | None = None
    metadata: dict[str, Any] = {}
    created_at: str
    updated_at: str


class WorkflowShown(BaseModel):
    """A workflow, agent or tool that a live worker offers."""

    workflow_id: str
    deployment_id: str
    workflow_type: str
    description: str | None = None
    trigger_on_event: bool = False
    scheduled: bool = False
    created_at: str


@router.get("/agents", responses=problems())
async def list_agents(
    caller: CallerDep, services: ServicesDep, deployment_id: Deployment = None
) -> list[AgentShown]:
    """Return the agents that live workers offer, of the newest deployment first."""
    return [_agent(found) for found in await _offered(services, caller, deployment_id, kind="agent")]


@router.get("/agents/{agent_id:path}", responses=problems(404))
async def read_agent(
    caller: CallerDep, services: ServicesDep, agent_id: Label, deployment_id: Deployment = None
) -> AgentShown:
    """Return an agent, of its newest deployment by default."""
    found = await _offered(services, caller, deployment_id, kind="agent")
    return _agent(_named(found, agent_id, "agent", caller))


@router.get("/tools", responses=problems())
async def list_tools(
    caller: CallerDep, services: ServicesDep, deployment_id: Deployment = None
) -> list[ToolShown]:
    """Return the tools that live workers offer, of the newest deployment first."""
    return [_tool(found) for found in await _offered(services, caller, deployment_id, kind="tool")]


@router.get("/tools/{tool_id:path}", responses=problems(404))
async def read_tool(
    caller: CallerDep, services: ServicesDep, tool_id: Label, deployment_id: Deployment = None
) -> ToolShown:
    """Return a tool, of its newest deployment by default."""
    found = await _offered(services, caller, deployment_id, kind="tool")
    return _tool(_named(found, tool_id, "tool", caller))


@router.get("/workflows", responses=problems())
async def list_workflows(
    caller: CallerDep, services: ServicesDep, deployment_id: Deployment = None
) -> list[WorkflowShown]:
    """Return the workflows that live workers offer, of the newest deployment first."""
    return [_workflow(found) for found in await _offered(services, caller, deployment_id, kind="workflow")]


@router.get("/workflows/{workflow_id:path}", responses=problems(404))
async def read_workflow(
    caller: CallerDep, services: ServicesDep, workflow_id: Label, deployment_id: Deployment = None
) -> WorkflowShown:
    """Return a workflow, agent or tool, of its newest deployment by default."""
    found = await _offered(services, caller, deployment_id)
    return _workflow(_named(found, workflow_id, "workflow", caller))


async def _offered(
    services: Services, caller: Caller, deployment: str | None, *, kind: str | None = None
) -> list[dict[str, Any]]:
    silence = services.settings.silence_limit_seconds
    found = await services.journal.call(
        lambda journal: list(read_offered(journal, caller.project, silence_limit_seconds=silence))
    )
    return [
        each for each in found if kind in {None, each["kind"]} and deployment in {None, each["deployment"]}
    ]


def _named(found: Iterable[dict[str, Any]], name: str, what: str, caller: Caller) -> dict[str, Any]:
    for each in found:
        if each["name"] == name:
            return each
    raise missing(f"{what} {name!r} that a live worker offers", caller.project)


def _agent(found: dict[str, Any]) -> AgentShown:
    return AgentShown.model_validate({**_told(found), **_place(found)})


def _tool(found: dict[str, Any]) -> ToolShown:
    return ToolShown.model_validate({**_told(found), **_place(found)})


def _workflow(found: dict[str, Any]) -> WorkflowShown:
    place = _place(found)
    return WorkflowShown.model_validate(
        {**_told(found), **place, "workflow_id": place["id"], "workflow_type": found["kind"]}
    )


def _told(found: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(found["details"])) if found["details"] else {}


def _place(found: dict[str, Any]) -> dict[str, Any]:
    since = api_time(found["first_seen_at"])
    return {
        "id": found["name"],
        "deployment_id": found["deployment"],
        "created_at": since,
        "updated_at": since,
    }
