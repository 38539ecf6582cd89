"""`get_session_memory` and `put_session_memory`: what agents remember, with the client of the process."""

from __future__ import annotations

from typing import Any, Protocol, cast

from polos.callers import client_and_payload
from polos.current import current_context
from polos.memory.types import SessionMemory
from polos.sessions import Sessions


class SessionClient(Protocol):
    """What these functions need of a client; see `PolosClient`."""

    @property
    def sessions(self) -> Sessions:
        """The sessions of its project."""


async def get_session_memory(
    session_id: str, agent_id: str | None = None, *, client: SessionClient | None = None
) -> SessionMemory:
    """Return what an agent remembers of a session; empty when it was never in it.

    Inside the run of an agent that agent is meant; elsewhere `agent_id` may be left out where no more than
    one agent was in the session.

    Raises:
        ValueError: Several agents were, and none is named.
    """
    return await _sessions(client).get_memory(session_id, agent_id or _speaker())


async def put_session_memory(
    session_id: str,
    summary: str | None,
    messages: list[dict[str, Any]],
    agent_id: str | None = None,
    *,
    client: SessionClient | None = None,
) -> None:
    """Let an agent remember this of a session, instead of what it remembers now.

    Raises:
        ValueError: No agent is named, outside the run of one; or a tool call has no output.
    """
    agent = agent_id or _speaker()
    if agent is None:
        raise ValueError(f"Whose memory of session {session_id!r} is meant? Say it with agent_id=")
    memory = SessionMemory(summary=summary, messages=messages)
    await _sessions(client).put_memory(session_id, agent, memory)


def _speaker() -> str | None:
    found = getattr(current_context.get(), "agent_id", None)
    return None if found is None else str(found)


def _sessions(client: SessionClient | None) -> Sessions:
    known, _ = client_and_payload(client, None)
    return cast(SessionClient, known).sessions
