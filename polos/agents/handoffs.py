"""Handoffs: another agent takes over the conversation when the model calls its transfer tool."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from polos.registry import get_workflow
from polos.workflows import Workflow

if TYPE_CHECKING:
    from polos.agents.agent import Agent

_NOT_IN_NAMES = re.compile(r"[^\w-]")
_PARAMETERS = {
    "type": "object",
    "properties": {"reason": {"type": "string", "description": "Why the other agent should take over"}},
}


@dataclass(frozen=True)
class Handoff:
    """An agent that may take over, and the tool by which a model says so.

    Attributes:
        agent: The agent, or its id where it is defined later.
        name: Of the tool; ``transfer_to_{agent id}`` if None.
        description: When to hand over; made from the agent's description if None.
    """

    agent: Agent | str
    name: str | None = None
    description: str | None = None

    @property
    def agent_id(self) -> str:
        """Id of the agent that takes over."""
        return self.agent if isinstance(self.agent, str) else self.agent.id

    @property
    def tool_name(self) -> str:
        """Name of the tool as the model sees it."""
        return self.name or f"transfer_to_{_NOT_IN_NAMES.sub('_', self.agent_id)}"

    def find_agent(self) -> Agent | None:
        """Return the agent; None if its id is not that of an agent of this process."""
        found = get_workflow(self.agent) if isinstance(self.agent, str) else self.agent
        return cast("Agent", found) if found is not None and found.workflow_type == "agent" else None

    def definition_for_model(self) -> dict[str, Any]:
        """Return the tool as one flat function definition."""
        agent = self.find_agent()
        purpose = self.description or (agent.description if agent is not None else None) or ""
        return {
            "type": "function",
            "name": self.tool_name,
            "description": f"Hand the conversation over to the agent {self.agent_id!r}. {purpose}".strip(),
            "parameters": _PARAMETERS,
        }


def check_handoffs(agent_id: str, handoffs: Iterable[Any] | None, tool_names: Iterable[str]) -> list[Handoff]:
    """Return the handoffs of an agent, given as agents, ids or `Handoff`s.

    Raises:
        TypeError: One is something else.
        ValueError: Two of them, or one and a tool, have the same name.
    """
    checked = [_checked(agent_id, one) for one in handoffs or ()]
    taken = set(tool_names)
    for handoff in checked:
        if handoff.tool_name in taken:
            raise ValueError(
                f"Agent {agent_id!r} has two tools named {handoff.tool_name!r}: "
                "give one another name with Handoff(..., name=)"
            )
        taken.add(handoff.tool_name)
    return checked


def _checked(agent_id: str, one: Any) -> Handoff:
    if isinstance(one, Handoff):
        return one
    if isinstance(one, str) or (isinstance(one, Workflow) and one.workflow_type == "agent"):
        return Handoff(one)  # type: ignore[arg-type]  # an agent, which mypy cannot know here
    raise TypeError(
        f"Agent {agent_id!r}: {one!r} is nothing to hand over to: give an Agent, its id or a Handoff"
    )
