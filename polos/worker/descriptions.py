"""What a worker tells of each definition it offers, for lists of agents, tools and workflows."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from polos import serialization
from polos.agents.agent import Agent
from polos.registry import get_workflow
from polos.routes import Routes
from polos.tools.tool import Tool
from polos.workflows import Workflow

logger = logging.getLogger("polos.worker")

LARGEST_BYTES = 1 << 18  # of one description; a larger one is left out


def described(offers: Iterable[tuple[str, str]], routes: Routes) -> dict[tuple[str, str], str]:
    """Return the descriptions of these definitions, (kind, name), as JSON text."""
    found = {offer: _text(definition, routes) for offer in offers if (definition := get_workflow(offer[1]))}
    return {offer: text for offer, text in found.items() if text is not None}


def _text(definition: Workflow, routes: Routes) -> str | None:
    try:
        return serialization.dumps(
            _description(definition, routes),
            limit_bytes=LARGEST_BYTES,
            what=f"the description of {definition.id!r}",
        )
    except Exception as error:  # noqa: BLE001 - schemas are the user's, and lists can do without one
        logger.debug("%r is offered without a description: %s", definition, error)
        return None


def _description(definition: Workflow, routes: Routes) -> dict[str, Any]:
    if isinstance(definition, Agent):
        return _of_agent(definition)
    if isinstance(definition, Tool):
        return {"description": definition.description, "parameters": definition.parameters}
    return {
        "description": definition.description,
        "trigger_on_event": definition.trigger_on_event is not None,
        "scheduled": definition.is_schedulable,
        "schedulable": definition.is_schedulable,
        "route": routes.of_run(definition.id, definition.route),
    }


def _of_agent(agent: Agent) -> dict[str, Any]:
    config = agent.config()
    return {
        "description": agent.description,
        "provider": config.provider,
        "model": config.model,
        "system_prompt": config.system_prompt,
        "tools": [
            *(config.tools or []),
            *({"type": "mcp_server", "name": one.name} for one in agent.servers),
        ],
        "temperature": config.temperature,
        "max_output_tokens": config.max_output_tokens,
    }
