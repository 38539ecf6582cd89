"""The tools that servers offer to one run: listed once, recorded, and the same on every replay."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from polos import serialization
from polos.engine.calling import RetryPolicy
from polos.engine.inline import run_inline
from polos.errors import StepExecutionError, ToolServerError
from polos.mcp.loading import connections_of
from polos.mcp.server import MCPServer
from polos.step_names import internal
from polos.tools.tool import Tool

if TYPE_CHECKING:
    from polos.engine.execution import Execution
    from polos.engine.runtime import Runtime

logger = logging.getLogger("polos.mcp")

# The first pause is longer than that of `connections`, which refuses what comes too soon.
RETRIES = RetryPolicy(max_retries=2, base_delay=1.5, max_delay=10.0)
LONGEST_NAME = 64  # characters that providers take
_DIGEST = 8
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")

Definition = dict[str, Any]


@dataclass(frozen=True)
class Listed:
    """What the servers of one agent offer to one run.

    Attributes:
        definitions: Of the tools, as models take them.
        tools: By the names the model sees.
    """

    definitions: list[Definition] = field(default_factory=list)
    tools: Mapping[str, Tool] = field(default_factory=dict)


async def list_tools(
    runtime: Runtime,
    execution: Execution,
    servers: Sequence[MCPServer],
    *,
    agent_id: str,
    taken: Iterable[str],
    place: str = "",
) -> Listed:
    """Return the tools of `servers`, asked for at the first pass and read from the journal later.

    Args:
        runtime: Of this worker.
        execution: The run.
        servers: Those of one agent.
        agent_id: Of that agent.
        taken: Names that its other tools have.
        place: Ends the names of the steps, where the run has others of these names.

    Raises:
        StepExecutionError: A server that is required cannot be listed, or two tools have one name.
    """
    records = await asyncio.gather(*(_recorded(runtime, execution, server, place) for server in servers))
    return _joined(list(zip(servers, records, strict=True)), agent_id, taken)


async def _recorded(
    runtime: Runtime, execution: Execution, server: MCPServer, place: str
) -> list[Definition]:
    name = internal(f"mcp:list:{server.name}{place}")
    try:
        listed: list[Definition] = await run_inline(
            runtime, execution, name, "run", partial(_ask, runtime, server), retries=RETRIES
        )
    except StepExecutionError as error:
        if server.required:
            raise
        logger.warning("Run %s goes on without the tools of %r: %s", execution.run_id, server, error)
        return []
    return listed


async def _ask(runtime: Runtime, server: MCPServer) -> list[Definition]:
    connections = await connections_of(runtime)
    record = record_of(server, await connections.tools(server))
    return _of_storable_size(server, record, runtime.settings.max_value_bytes)


def _of_storable_size(server: MCPServer, record: list[Definition], limit_bytes: int) -> list[Definition]:
    size = len(serialization.dumps(record).encode())
    if size > limit_bytes:
        raise ToolServerError(
            f"MCP server {server.name!r} offers {len(record)} tools, whose list is {size} bytes: more than "
            f"POLOS_MAX_VALUE_BYTES ({limit_bytes}). Name the ones to use in allowed_tools="
        )
    return record


def record_of(server: MCPServer, offered: Sequence[Mapping[str, Any]]) -> list[Definition]:
    """Return the tools that may be used: the name the server knows, and the definition for the model.

    Raises:
        ToolServerError: Declared tools are not offered, or two have the same name for the model.
    """
    _refuse_unknown(server, {tool["name"] for tool in offered})
    allowed = [tool for tool in offered if server.allows(tool["name"])]
    if unfit := [tool["name"][:80] for tool in allowed if server.find_tool(tool["name"]) is None]:
        raise ToolServerError(
            f"MCP server {server.name!r} offers tools whose names cannot be used: {unfit}; "
            "name the ones to use in allowed_tools="
        )
    names = [shown_name(server, tool["name"]) for tool in allowed]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ToolServerError(
            f"MCP server {server.name!r} offers several tools that the model would see as {doubled}; "
            "name the ones to use in allowed_tools="
        )
    return [_record(name, tool) for name, tool in zip(names, allowed, strict=True)]


def shown_name(server: MCPServer, remote_name: str) -> str:
    """Return the name that the model sees: of characters, and a length, that all providers take."""
    name = _NOT_IN_NAMES.sub("_", f"{server.name}_{remote_name}" if server.prefix else remote_name)
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(remote_name.encode()).hexdigest()[:_DIGEST]
    return f"{name[: LONGEST_NAME - _DIGEST - 1]}_{digest}"


def _refuse_unknown(server: MCPServer, offered: set[str]) -> None:
    """Refuse names that can only be mistakes: a misspelt approval would let a tool run unasked."""
    wanted = {*(server.allowed_tools or ()), *server.tools_with_approval}
    if unknown := sorted(wanted - offered):
        raise ToolServerError(
            f"MCP server {server.name!r} has no tools {unknown}, which allowed_tools= or approval= name; "
            f"it offers {sorted(offered)}"
        )


def _record(name: str, tool: Mapping[str, Any]) -> Definition:
    schema = {key: value for key, value in (tool.get("inputSchema") or {}).items() if key != "$schema"}
    return {
        "tool": tool["name"],
        "name": name,
        "description": tool.get("description") or tool.get("title") or "",
        "parameters": {"type": "object", "properties": {}, **schema},
    }


def _joined(
    records: Sequence[tuple[MCPServer, list[Definition]]], agent_id: str, taken: Iterable[str]
) -> Listed:
    definitions: list[Definition] = []
    owners = dict.fromkeys(taken, "its own tools")
    tools: dict[str, Tool] = {}
    for server, record in records:
        for definition in record:
            name = definition["name"]
            if name in owners:
                raise StepExecutionError(_collision(agent_id, name, server, owners[name]))
            tool = server.find_tool(definition["tool"])
            if tool is None:
                continue  # allowed when the run began, and no more
            owners[name] = f"the MCP server {server.name!r}"
            tools[name] = tool
            definitions.append(
                {"type": "function", **{key: value for key, value in definition.items() if key != "tool"}}
            )
    return Listed(definitions, tools)


def _collision(agent_id: str, name: str, server: MCPServer, owner: str) -> str:
    return (
        f"Agent {agent_id!r} has two tools named {name!r}: one of the MCP server {server.name!r}, one of "
        f"{owner}. Leave prefix= of MCPServer at True, give the server another name, or leave a tool out of "
        "allowed_tools="
    )
