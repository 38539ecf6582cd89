"""What agents remember of sessions is the same on both ways: direct, and over HTTP."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from sites import Site

from polos import PolosClient
from polos.memory import SessionMemory, get_session_memory, put_session_memory

pytestmark = pytest.mark.timeout(120)
SAID = [
    {"role": "user", "content": "How is Paris?"},
    {"type": "function_call", "name": "weather", "call_id": "call_1", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "mild \ud83d"},
    {"role": "assistant", "content": "Mild \U0001f324."},
]


async def test_a_memory_is_written_read_and_deleted(client: PolosClient, way: str) -> None:
    session, sessions = f"a session/of {way}", client.sessions
    memory = SessionMemory(summary="Ada is there.", messages=SAID)
    await sessions.put_memory(session, "helper", memory)
    assert await sessions.get_memory(session) == memory
    assert await sessions.agents(session) == ["helper"]

    await put_session_memory(session, None, SAID[:1], agent_id="other", client=client)
    assert await sessions.agents(session) == ["helper", "other"]
    with pytest.raises(ValueError, match="Several agents remember"):
        await get_session_memory(session, client=client)
    assert await get_session_memory(session, "helper", client=client) == memory

    await sessions.put_memory(session, "helper", SessionMemory(messages=SAID[:1]))
    assert await sessions.get_memory(session, "helper") == SessionMemory(messages=SAID[:1])
    assert await sessions.delete_memory(session, "helper") == 1
    assert await sessions.get_memory(session, "helper") == SessionMemory()
    assert await sessions.delete_memory(session) == 1
    assert await sessions.agents(session) == []


async def test_a_session_belongs_to_its_project(site: Site, client: PolosClient, way: str) -> None:
    session = f"shared {way}"
    await client.sessions.put_memory(session, "helper", SessionMemory(messages=SAID))
    async with site.client(way, project_id="elsewhere") as other:
        assert await other.sessions.agents(session) == []
        assert await other.sessions.get_memory(session, "helper") == SessionMemory()
        assert await other.sessions.delete_memory(session) == 0
    assert await client.sessions.get_memory(session) == SessionMemory(messages=SAID)


async def test_what_cannot_be_remembered_is_refused(client: PolosClient) -> None:
    with pytest.raises(ValueError, match="without an output, or outputs without a call: call_1"):
        await client.sessions.put_memory("bad", "helper", SessionMemory(messages=SAID[:2]))
    with pytest.raises(ValueError, match="session_id"):
        await client.sessions.get_memory("")
    with pytest.raises(ValueError, match="agent_id="):
        await put_session_memory("bad", None, SAID, client=client)
    assert await client.sessions.agents("bad") == []


async def test_code_that_cannot_await_has_the_same(client: PolosClient, way: str) -> None:
    def work() -> tuple[list[str], SessionMemory, int]:
        sessions = client.sync.sessions
        sessions.put_memory(f"sync {way}", "helper", SessionMemory(messages=SAID))
        found = sessions.agents(f"sync {way}"), sessions.get_memory(f"sync {way}")
        return (*found, sessions.delete_memory(f"sync {way}"))

    assert await asyncio.to_thread(work) == (["helper"], SessionMemory(messages=SAID), 1)


async def test_the_api_refuses_what_it_cannot_read(site: Site) -> None:
    headers = {"Authorization": f"Bearer {site.keys['default']}"}
    async with httpx.AsyncClient(base_url=f"{site.url}/api/v1", headers=headers) as http:
        path = "/sessions/s/memory"
        assert (await http.get(path)).json() == {"session_id": "s", "memories": []}
        for answer in (
            await http.put(path, json={"messages": []}),
            await http.put(path, params={"agent_id": "a"}, json={"messages": "none"}),
            await http.put(path, params={"agent_id": "a"}, json={"messages": SAID[:2]}),
        ):
            assert answer.status_code == 400, answer.text
        assert (await http.get("/sessions/no-run")).status_code == 404
