"""Floor of the agents: a loop over plain HTTP calls, every model answer and tool result committed."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

import aiohttp
import uvloop

from benchmarks.floors.journal import GroupWriter, Journal, claim, create, finish, group_writer
from benchmarks.programs import NOTHING

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a word up",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}


@dataclass(frozen=True)
class Spent:
    """How long all agents took, and the CPU time of it."""

    seconds: float
    cpu_seconds: float


async def run_agents(url: str, model_url: str, script: str, *, count: int, at_once: int) -> Spent:
    """Run `count` agents in this process, `at_once` at a time, on a loop of their own."""
    return await asyncio.to_thread(uvloop.run, _run_agents(url, model_url, script, count, at_once))


async def _run_agents(url: str, model_url: str, script: str, count: int, at_once: int) -> Spent:
    room = asyncio.Semaphore(at_once)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        group_writer(url) as (writer, journal),
        aiohttp.ClientSession(connector=connector) as session,
        asyncio.TaskGroup() as group,
    ):
        began, cpu_began = time.perf_counter(), time.process_time()

        async def one() -> None:
            async with room:
                await _agent(writer, journal, session, f"{model_url}/chat/completions", script)

        await asyncio.gather(*(group.create_task(one()) for _ in range(count)))
        return Spent(time.perf_counter() - began, time.process_time() - cpu_began)


async def _agent(
    writer: GroupWriter, journal: Journal, session: aiohttp.ClientSession, url: str, script: str
) -> None:
    run = str(uuid.uuid4())
    await writer.do(create(run))
    await writer.do(claim(run))
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": script},
        {"role": "user", "content": "Look it up"},
    ]
    for turn in range(1000):
        message = await _ask(session, url, {"model": "gpt-4o", "messages": messages, "tools": [TOOL]})
        await writer.do(journal.step(run, f"turn{turn}", json.dumps(message)))
        messages.append(message)
        if not message["tool_calls"]:
            await writer.do(finish(run, json.dumps(message["content"])))
            return
        calls = (_call(writer, journal, run, call) for call in message["tool_calls"])
        messages.extend(await asyncio.gather(*calls))


async def _ask(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"authorization": "Bearer sk-benchmark"}
    async with session.post(url, json=body, headers=headers) as response:
        answer = await response.json()
    message: dict[str, Any] = answer["choices"][0]["message"]
    return message


async def _call(writer: GroupWriter, journal: Journal, run: str, call: dict[str, Any]) -> dict[str, Any]:
    output = json.dumps(NOTHING)
    await writer.do(journal.step(run, call["id"], output))
    return {"role": "tool", "tool_call_id": call["id"], "content": output}
