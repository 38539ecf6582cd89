"""What agents remember of sessions, read and written by clients: on any connection to the journal."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from polos import serialization
from polos.inputs import check_labels
from polos.journal.forgetting import READ_AGENTS, forget, remove_forgotten, replace_memory
from polos.journal.memory import (
    READ_HISTORY,
    READ_WATERMARK,
    NewMessage,
    SessionKey,
    history_params,
    watermark_of,
)
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.memory.estimates import estimate_message_tokens, estimate_tokens
from polos.memory.items import unpaired
from polos.memory.types import SessionMemory
from polos.sessions import only_agent


class Journal(Protocol):
    """A connection, or what stands for one."""

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Run units as one transaction."""


def remembering_agents(journal: Journal, project: str, session_id: str) -> list[str]:
    """Return the ids of the agents that remember something of a session, in order."""
    rows = journal.read(READ_AGENTS, {"project": project, "session_id": session_id})
    return [agent for agent, last, deleted, _, summary, *_ in rows if last > deleted or summary is not None]


def read_memory(journal: Journal, key: SessionKey) -> SessionMemory:
    """Return what the next run of the agent begins with."""
    mark = watermark_of(key, journal.read(READ_WATERMARK, key.params()))
    if mark.is_empty:
        return SessionMemory()
    return memory_of(journal.read(READ_HISTORY, history_params(key.project, mark)))


def memory_of(rows: Rows) -> SessionMemory:
    """Return what `READ_HISTORY` answered."""
    memory = SessionMemory()
    for number, said in rows:
        if number == 0:
            memory.summary = said
        else:
            memory.messages.append(serialization.loads(said))
    return memory


def write_memory(journal: Journal, key: SessionKey, memory: SessionMemory, *, limit_bytes: int) -> None:
    """Replace what an agent remembers. What was before is removed once no run reads it any more.

    Raises:
        ValueError: A call has no output or an output no call, or something is too large.
    """
    if lost := unpaired(memory.messages):
        raise ValueError(f"Calls without an output, or outputs without a call: {', '.join(lost)}")
    messages = [
        NewMessage(
            serialization.dumps(item, limit_bytes=limit_bytes, what="message"), estimate_message_tokens(item)
        )
        for item in memory.messages
    ]
    summary = None if memory.summary is None else NewMessage(memory.summary, estimate_tokens(memory.summary))
    journal.commit([replace_memory(key, uuid.uuid4().hex, messages, summary=summary)])
    journal.commit([remove_forgotten(key)])


def delete_memory(journal: Journal, project: str, session_id: str, agent: str | None) -> int:
    """Forget what one agent remembers of a session, or all do; return of how many agents anything went."""
    agents = remembering_agents(journal, project, session_id) if agent is None else [agent]
    forgotten = 0
    for name in agents:
        key = SessionKey(project, session_id, name)
        [rows] = journal.commit([forget(key, uuid.uuid4().hex)])
        journal.commit([remove_forgotten(key)])
        forgotten += bool(rows)
    return forgotten


class SessionsBackend(Protocol):
    """What a client's sessions need of its connections; see `ClientBackend`."""

    @property
    def journal(self) -> Journal:
        """The journal; blocking."""


class DirectSessions:
    """The sessions of one project, in the journal; see `Sessions` for what each method does.

    Args:
        project: Whose.
        backend: Returns connections.
        limit_bytes: Of one message.
    """

    def __init__(
        self, project: str, *, backend: Callable[[], Awaitable[SessionsBackend]], limit_bytes: int
    ) -> None:
        self._project = project
        self._backend = backend
        self._limit_bytes = limit_bytes

    async def agents(self, session_id: str) -> list[str]:
        """See `Sessions`."""
        journal = await self._journal(session_id)
        return await asyncio.to_thread(remembering_agents, journal, self._project, session_id)

    async def get_memory(self, session_id: str, agent_id: str | None = None) -> SessionMemory:
        """See `Sessions`."""
        agent = agent_id or only_agent(session_id, await self.agents(session_id))
        if agent is None:
            return SessionMemory()
        journal = await self._journal(session_id, agent)
        return await asyncio.to_thread(read_memory, journal, SessionKey(self._project, session_id, agent))

    async def put_memory(self, session_id: str, agent_id: str, memory: SessionMemory) -> None:
        """See `Sessions`."""
        journal = await self._journal(session_id, agent_id)
        key = SessionKey(self._project, session_id, agent_id)
        await asyncio.to_thread(write_memory, journal, key, memory, limit_bytes=self._limit_bytes)

    async def delete_memory(self, session_id: str, agent_id: str | None = None) -> int:
        """See `Sessions`."""
        journal = await self._journal(session_id, agent_id)
        return await asyncio.to_thread(delete_memory, journal, self._project, session_id, agent_id)

    async def _journal(self, session_id: str, agent_id: str | None = None) -> Journal:
        check_labels(session_id=session_id, agent_id=agent_id)
        return (await self._backend()).journal
