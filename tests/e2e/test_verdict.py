"""llmock's verdict on the runtime: it watches how each fault is met, and finds nothing to say."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from llmock.scenarios import Delay, Fail, Match, Reply, StreamFault, ToolCall, ToolFault
from llmock.verdict import Verdict, judge
from models.servers import ModelServer
from weather import City

from polos import Agent, Polos, WorkflowContext, tool
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(120)
ANSWER = "all is well here, and nothing of this sentence may be missing at its end"
PAUSE_SECONDS = "2"
"""Before the second attempt; long enough for a loaded machine not to make two pauses look alike."""


@tool(id="verdict_weather", description="The weather in a city")
async def look(ctx: WorkflowContext, input: City) -> str:
    return f"{input.city} is mild"


@dataclass(frozen=True)
class Case:
    """One agent that meets faults.

    Attributes:
        faults: What its provider does, before it answers.
        calls: Requests it should make.
        fails: What the error of the run says; None where it should answer.
    """

    provider: str
    faults: tuple[Any, ...]
    calls: int
    streamed: bool = False
    fails: str | None = None
    tools: bool = False
    llm_api: str | None = None


def _stream(kind: Any, provider: str, llm_api: str | None = None) -> Case:
    fault = StreamFault(kind, after_chunks=2, stall_seconds=30)
    return Case(provider, (fault,), 2, streamed=True, llm_api=llm_api)


CASES = {
    "busy": Case("openai", (Fail(429, retry_after=4.0),), 2),
    "busy-messages": Case("anthropic", (Fail(429, retry_after=3.5),), 2),
    "busy-stream": Case("gemini", (Fail(429, retry_after=4.0),), 2, streamed=True),
    "down-for-a-while": Case("groq", (Fail(503, times=2),), 3),
    "broken-for-a-while": Case("together", (Fail(500, times=2),), 3),
    "overloaded": Case("anthropic", (Fail(529),), 2),
    "down": Case("openai", (Fail(503, times=None),), 3, fails="503"),
    "wrong-key": Case("groq", (Fail(401, times=None),), 1, fails="GROQ_API_KEY"),
    "bad-option": Case("anthropic", (Fail(400, times=None),), 1, fails="would be refused again"),
    "no-such-model": Case("gemini", (Fail(404, times=None),), 1, fails="Check the model name"),
    "slow": Case("openai", (Delay(6.0),), 2),
    "dropped": _stream("disconnect", "openai"),
    "dropped-chat": _stream("disconnect", "openai", "chat_completions"),
    "dropped-messages": _stream("disconnect", "anthropic"),
    "cut": _stream("truncate", "openai"),
    "cut-chat": _stream("truncate", "groq"),
    "cut-messages": _stream("truncate", "anthropic"),
    "cut-contents": _stream("truncate", "gemini"),
    "garbled": _stream("malformed", "openai"),
    "garbled-chat": _stream("malformed", "together"),
    "garbled-contents": _stream("malformed", "gemini"),
    "silent": _stream("stall", "openai"),
    "silent-messages": _stream("stall", "anthropic"),
    "broken-call": Case("openai", (ToolFault("malformed_arguments"),), 2, tools=True),
    "unknown-tool": Case("anthropic", (ToolFault("unknown_tool"),), 2, tools=True),
}
AGENTS = {
    name: Agent(
        id=f"verdict-{name}",
        provider=case.provider,
        model=name,
        provider_llm_api=case.llm_api,
        tools=[look] if case.tools else [],
        model_retries=2,
        model_timeout_seconds=5.0,
        chunk_timeout_seconds=3.0,
    )
    for name, case in CASES.items()
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def patient(llmock: ModelServer) -> AsyncIterator[Polos]:
    """A program with a worker, which has made calls before."""
    home = Path(tempfile.mkdtemp(prefix="polos-verdict-"))
    with pytest.MonkeyPatch.context() as patch:
        ours = {"POLOS_HOME": str(home), "POLOS_MODEL_RETRY_BASE_SECONDS": PAUSE_SECONDS}
        for name, value in {**llmock.environment, **ours}.items():
            patch.setenv(name, value)
        async with Polos() as program:
            llmock.reset()
            first_of_each = {agent.provider: agent for agent in AGENTS.values()}
            await asyncio.gather(*(agent.run(program, "hello") for agent in first_of_each.values()))
            yield program
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def faults(llmock: ModelServer) -> ModelServer:
    """Each agent's provider does what its case says, and answers after that."""
    llmock.reset()
    llmock.paces(20)
    for name, case in CASES.items():
        for fault in case.faults:
            llmock.script(replace(fault, match=replace(fault.match, model=name)))
        if case.tools:
            call = ToolCall("verdict_weather", {"city": "Paris"})
            llmock.script(Reply(tool_calls=(call,), match=Match(model=name)))
        llmock.script(Reply(text=ANSWER, times=None, match=Match(model=name)))
    return llmock


async def _outcome(program: Polos, name: str) -> str:
    agent, case = AGENTS[name], CASES[name]
    try:
        if not case.streamed:
            return str((await agent.run(program, f"how is {name}?")).result)
        stream = await agent.stream(program, f"how is {name}?")
        pieces = [piece async for piece in stream.text_chunks]
        result = str((await stream.result()).result)
    except RunFailedError as error:
        return f"failed: {error}"
    return result if "".join(pieces) == result else f"streamed {pieces}, answered {result!r}"


async def test_every_fault_is_met_as_it_should_be(patient: Polos, faults: ModelServer) -> None:
    """All at once. Nothing is repeated that cannot help, nothing too soon, and no half answer is taken."""
    outcomes = dict(
        zip(CASES, await asyncio.gather(*(_outcome(patient, name) for name in CASES)), strict=True)
    )

    for name, case in CASES.items():
        wanted = ANSWER if case.fails is None else case.fails
        assert wanted in outcomes[name], (name, outcomes[name])
        assert outcomes[name].startswith("failed") == (case.fails is not None), (name, outcomes[name])
    requests = faults.requests
    counts = {name: sum(request.model == name for request in requests) for name in CASES}
    assert counts == {name: case.calls for name, case in CASES.items()}
    verdict: Verdict = judge(requests)
    assert verdict.attempts > len(verdict.calls) >= len(CASES)
    faults.assert_resilient()
