"""Sessions, as a client has them: what agents remember of them, to read, to write and to delete."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from polos.memory.types import SessionMemory


class Sessions(Protocol):
    """The sessions of a project, as a client has them in ``client.sessions``."""

    async def agents(self, session_id: str) -> list[str]:
        """Return the ids of the agents that remember something of a session."""

    async def get_memory(self, session_id: str, agent_id: str | None = None) -> SessionMemory:
        """Return what an agent remembers of a session; empty when it was never in it.

        `agent_id` may be left out where no more than one agent was in the session.

        Raises:
            ValueError: Several agents were, and none is named.
        """

    async def put_memory(self, session_id: str, agent_id: str, memory: SessionMemory) -> None:
        """Let an agent remember this of a session, instead of what it remembers now.

        Raises:
            ValueError: A tool call has no output, or an output no call; or it cannot be stored.
        """

    async def delete_memory(self, session_id: str, agent_id: str | None = None) -> int:
        """Forget a session, or what one agent remembers of it; return how many agents' memories went.

        A run under way goes on with what it has loaded, and leaves its own messages when it ends.
        """


class SyncSessions:
    """The same for code that cannot await; made by ``client.sync.sessions``."""

    def __init__(self, sessions: Sessions, call: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._sessions = sessions
        self._call = call

    def agents(self, session_id: str) -> list[str]:
        """Return the ids of the agents that remember something of a session."""
        found: list[str] = self._call(self._sessions.agents(session_id))
        return found

    def get_memory(self, session_id: str, agent_id: str | None = None) -> SessionMemory:
        """Return what an agent remembers of a session; empty when it was never in it."""
        found: SessionMemory = self._call(self._sessions.get_memory(session_id, agent_id))
        return found

    def put_memory(self, session_id: str, agent_id: str, memory: SessionMemory) -> None:
        """Let an agent remember this of a session, instead of what it remembers now."""
        self._call(self._sessions.put_memory(session_id, agent_id, memory))

    def delete_memory(self, session_id: str, agent_id: str | None = None) -> int:
        """Forget a session, or what one agent remembers of it; return how many agents' memories went."""
        return int(self._call(self._sessions.delete_memory(session_id, agent_id)))


def only_agent(session_id: str, found: list[str]) -> str | None:
    """Return the only agent that remembers a session, None for none.

    Raises:
        ValueError: There are several.
    """
    if len(found) > 1:
        raise ValueError(
            f"Several agents remember session {session_id!r}: {', '.join(sorted(found))}; "
            "say which with agent_id="
        )
    return found[0] if found else None
