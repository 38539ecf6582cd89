"""What agents remember of sessions, asked of a server."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from polos.errors import ConfigurationError
from polos.inputs import check_labels
from polos.memory.types import SessionMemory
from polos.remote.connection import ServerConnection
from polos.remote.refusals import data_of
from polos.sessions import only_agent

HTTP_NO_CONTENT = 204


class RemoteSessions:
    """See `polos.sessions.Sessions` for what each method does."""

    def __init__(self, server: ServerConnection) -> None:
        self._server = server

    async def agents(self, session_id: str) -> list[str]:
        """See `Sessions`."""
        return [one["agent_id"] for one in await self._memories(session_id, None)]

    async def get_memory(self, session_id: str, agent_id: str | None = None) -> SessionMemory:
        """See `Sessions`."""
        found = {one["agent_id"]: one for one in await self._memories(session_id, agent_id)}
        agent = agent_id or only_agent(session_id, list(found))
        return SessionMemory.model_validate(found.get(agent, {}))

    async def put_memory(self, session_id: str, agent_id: str, memory: SessionMemory) -> None:
        """See `Sessions`."""
        await self._asked("PUT", session_id, agent_id, body=memory.model_dump(mode="json"))

    async def delete_memory(self, session_id: str, agent_id: str | None = None) -> int:
        """See `Sessions`."""
        return int((await self._asked("DELETE", session_id, agent_id))["deleted"])

    async def _memories(self, session_id: str, agent_id: str | None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._asked("GET", session_id, agent_id))["memories"]
        return found

    async def _asked(self, method: str, session_id: str, agent_id: str | None, **how: Any) -> Any:
        check_labels(session_id=session_id, agent_id=agent_id)
        params = {} if agent_id is None else {"agent_id": agent_id}
        path = f"/sessions/{quote(session_id, safe='')}/memory"
        response = await self._server.ask(method, path, params=params, **how)
        if response is None:
            raise ConfigurationError(
                "The server does not know this path; upgrade it to this version of polos"
            )
        return {} if response.status_code == HTTP_NO_CONTENT else data_of(response, self._server.url)
