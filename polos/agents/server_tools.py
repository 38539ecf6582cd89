"""The tools of MCP servers in the loop: listed when an agent first speaks, told to its model from then on."""

from __future__ import annotations

from polos.agents.asking import Loop
from polos.mcp.listing import list_tools
from polos.tools.tool import Tool


async def list_of_speaker(loop: Loop) -> None:
    """List what the servers of the agent that speaks offer, once per run.

    Raises:
        StepExecutionError: They cannot be listed, or two tools have one name.
    """
    speaker = loop.speaker
    if not speaker.servers or speaker.id in loop.listed:
        return
    listed = await list_tools(
        *loop.engine,
        speaker.servers,
        agent_id=speaker.id,
        taken=speaker.tool_names(),
        place="" if speaker is loop.agent else f":{speaker.id}",
    )
    loop.listed[speaker.id] = listed
    loop.conversation.offer(speaker.id, listed.definitions)


def find_listed(loop: Loop, name: str) -> Tool | None:
    """Return the tool of a server that the model of the speaker knows by this name."""
    listed = loop.listed.get(loop.speaker.id)
    return None if listed is None else listed.tools.get(name)


def names_of_speaker(loop: Loop) -> list[str]:
    """Return the names of everything the model may call, sorted."""
    listed = loop.listed.get(loop.speaker.id)
    return sorted([*loop.speaker.tool_names(), *(() if listed is None else listed.tools)])
