"""Agents and workflows that a model calls as tools: each call is a child run of theirs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from polos.functions import is_model
from polos.queues import Queue
from polos.registry import get_workflow, register
from polos.tools.tool import ApprovalRule, Tool
from polos.workflows import Workflow

if TYPE_CHECKING:
    from polos.agents.agent import Agent

_NOT_IN_NAMES = re.compile(r"[^\w-]", re.ASCII)  # providers take no others
_ANYTHING = {"type": "object", "additionalProperties": True}


class AgentInput(BaseModel):
    """What an agent that is a tool is asked."""

    input: str = Field(description="What to ask of the agent, in full: it sees nothing of this conversation")


class DelegateTool(Tool):
    """A tool that starts a run of another definition and waits for it; its failure is the tool's failure.

    Attributes:
        target: The agent or workflow.
    """

    def __init__(
        self,
        target: Workflow,
        func: Callable[..., Any],
        *,
        id: str | None,
        description: str | None,
        parameters: dict[str, Any] | None = None,
        approval: ApprovalRule | None = None,
        approval_timeout: float | None = None,
    ) -> None:
        own_id = id or f"{target.id}.tool"
        super().__init__(
            own_id,
            description or target.description or f"Runs the {target.workflow_type} {target.id!r}.",
            parameters,
            func,
            Queue(own_id),  # another than the target's: it waits while the target has a slot there
            approval=approval,
            approval_timeout=approval_timeout,
            route=target.route,
            name=id or _NOT_IN_NAMES.sub("_", target.id),
        )
        self.target = target

    def get_tool_type(self) -> str:
        """Return ``agent`` or ``workflow``."""
        return self.target.workflow_type

    def get_tool_metadata(self) -> dict[str, Any] | None:
        """Return the id of what it runs."""
        return {"target": self.target.id}


def tool_of_agent(
    agent: Agent,
    *,
    id: str | None = None,
    description: str | None = None,
    approval: ApprovalRule | None = None,
    approval_timeout: float | None = None,
    input_schema: type[BaseModel] | None = None,
    run_timeout_seconds: int | None = None,
) -> DelegateTool:
    """Return an agent as a tool; see `Agent.as_tool`."""
    if input_schema is not None and not is_model(input_schema):
        raise TypeError(f"Agent {agent.id!r}: input_schema must be a Pydantic class, not {input_schema!r}")

    async def ask(ctx: Any, input: Any) -> Any:
        text = input.input if isinstance(input, AgentInput) else input.model_dump_json()
        config = agent.with_input(text, run_timeout_seconds=run_timeout_seconds)
        result = await ctx.step.agent_invoke_and_wait("agent", config)
        return result.result

    return DelegateTool(
        agent,
        _taking(ask, input_schema or AgentInput),
        id=id,
        description=description,
        approval=approval,
        approval_timeout=approval_timeout,
    )


def tool_of_workflow(workflow: Workflow) -> DelegateTool:
    """Return a workflow as a tool of its name, whose arguments are the payload."""
    if get_workflow(workflow.id) is None:
        register(workflow)
    if not workflow.has_payload_param:
        return DelegateTool(workflow, _without_payload(workflow), id=None, description=None)

    async def run(ctx: Any, input: Any) -> Any:
        return await ctx.step.invoke_and_wait("workflow", workflow, input)

    model = workflow.payload_schema_class
    return DelegateTool(
        workflow,
        _taking(run, dict[str, Any] if model is None else model),
        id=None,
        description=None,
        parameters=_ANYTHING if model is None else None,
    )


def tool_of(definition: Workflow) -> Tool:
    """Return what is in an agent's `tools` as a tool."""
    if isinstance(definition, Tool):
        return definition
    as_tool: Callable[[], Tool] | None = getattr(definition, "as_tool", None)
    return tool_of_workflow(definition) if as_tool is None else as_tool()


def _without_payload(workflow: Workflow) -> Callable[..., Any]:
    async def run(ctx: Any) -> Any:
        return await ctx.step.invoke_and_wait("workflow", workflow)

    return run


def _taking(func: Callable[..., Any], payload: Any) -> Callable[..., Any]:
    func.__annotations__["input"] = payload
    return func
