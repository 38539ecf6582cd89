"""What agents remember of sessions, over HTTP: read, replace and delete it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from polos.memory.types import SessionMemory
from polos.server.errors import ApiError
from polos.server.fields import JsonAnswer, Label, ServicesDep, Word, problems
from polos.server.gate import Caller, CallerDep
from polos.server.services import Services
from polos.sessions import Sessions

router = APIRouter(tags=["sessions"])
Agent = Annotated[Label | None, Query(description="Only what this agent remembers.")]


class MemoryShown(BaseModel):
    """What the next run of an agent in a session begins with."""

    agent_id: str
    summary: str | None
    messages: list[dict[str, Any]]


class Memories(BaseModel):
    """What agents remember of a session, by agent; each has its own."""

    session_id: str
    memories: list[MemoryShown]


class MemoryWanted(BaseModel):
    """What an agent is to remember of a session, instead of what it remembers now."""

    summary: Word | None = Field(default=None, max_length=1 << 20)
    messages: list[dict[str, Any]] = Field(default_factory=list)


class MemoriesDeleted(BaseModel):
    """Of how many agents anything was deleted."""

    deleted: int


@router.get("/sessions/{session_id:path}/memory", response_model=Memories, responses=problems(404))
async def read_memory(
    caller: CallerDep, services: ServicesDep, session_id: Label, agent_id: Agent = None
) -> JsonAnswer:
    """Return what agents remember of a session; nothing of one that is not known."""
    sessions = _of(services, caller)
    agents = [agent_id] if agent_id is not None else await sessions.agents(session_id)
    memories = [
        MemoryShown(agent_id=agent, **dict(await sessions.get_memory(session_id, agent))) for agent in agents
    ]
    return JsonAnswer(Memories(session_id=session_id, memories=memories))


@router.put("/sessions/{session_id:path}/memory", status_code=204, responses=problems(404))
async def replace_memory(
    caller: CallerDep,
    services: ServicesDep,
    session_id: Label,
    agent_id: Annotated[Label, Query(description="Whose memory.")],
    body: MemoryWanted,
) -> Response:
    """Let an agent remember this of a session, instead of what it remembers now."""
    try:
        memory = SessionMemory(summary=body.summary, messages=body.messages)
        await _of(services, caller).put_memory(session_id, agent_id, memory)
    except ValueError as error:
        raise ApiError(400, str(error)) from error
    return Response(status_code=204)


@router.delete("/sessions/{session_id:path}/memory", responses=problems(404))
async def delete_memory(
    caller: CallerDep, services: ServicesDep, session_id: Label, agent_id: Agent = None
) -> MemoriesDeleted:
    """Forget a session, or what one agent remembers of it. Runs under way keep what they have loaded."""
    return MemoriesDeleted(deleted=await _of(services, caller).delete_memory(session_id, agent_id))


def _of(services: Services, caller: Caller) -> Sessions:
    return services.transport(caller.project).sessions
