"""What agents remember of sessions, read and written by clients: on any connection to the journal."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Protocol

from polos import serialization
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
