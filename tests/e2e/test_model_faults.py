"""What providers do to streamed answers, met by retries: the reader gets the whole answer, once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llmock.scenarios import Delay, Fail, StreamFault, ToolFault
from models.servers import Answer, ModelServer, Recorder
from weather import City, weather

from polos import Agent, Polos, WorkflowContext, tool

pytestmark = pytest.mark.timeout(120)
TEXT = "The quick brown fox jumps over the lazy dog, and does so again and again."
speaker = Agent(id="e2e-faulty", provider="openai", model="gpt-4o", model_retries=3)
impatient = Agent(
    id="e2e-impatient",
    provider="openai",
    model="gpt-4o",
    model_timeout_seconds=3,
    chunk_timeout_seconds=1.5,
)


@pytest.mark.parametrize(
    ("fault", "broke_off"),
    [
        pytest.param(Fail(429, retry_after=0.2), False, id="429 with Retry-After"),
        pytest.param(Fail(500), False, id="500"),
        pytest.param(Delay(4.0), False, id="silence before the first byte"),
        pytest.param(StreamFault("disconnect", after_chunks=4), True, id="cut in mid-stream"),
        pytest.param(StreamFault("truncate", after_chunks=4), True, id="ended early"),
        pytest.param(StreamFault("malformed", after_chunks=4), True, id="garbage"),
        pytest.param(
            StreamFault("stall", after_chunks=4, stall_seconds=20.0), True, id="silence in mid-stream"
        ),
    ],
)
async def test_a_fault_costs_one_attempt_and_no_word(
    polos: Polos, model: ModelServer, fault: Any, broke_off: bool
) -> None:
    model.script(fault)
    model.says(TEXT, times=None)
    is_silence = isinstance(fault, Delay) or (isinstance(fault, StreamFault) and fault.kind == "stall")
    stream = await (impatient if is_silence else speaker).stream(polos, "Speak.")
    events = [event async for event in stream.events]
    kinds = [event.event_type for event in events]
    ended = len(kinds) - 1 - kinds[::-1].index("stream_start")

    assert (await stream.result()).result == TEXT
    assert await stream.text() == TEXT
    assert "".join(e.data["content"] for e in events[ended:] if e.event_type == "text_delta") == TEXT
    assert ("stream_reset" in kinds) == ("text_delta" in kinds[:ended])
    assert broke_off or "text_delta" not in kinds[:ended]
    if not is_silence:  # else a slow machine may be impatient once more
        assert kinds.count("stream_start") == len(model.requests) == 2
    model.assert_resilient()


async def test_faults_one_after_the_other_are_bounded(polos: Polos, model: ModelServer) -> None:
    model.script(Fail(503, times=None))
    handle = await speaker.invoke(polos, {"input": "Speak."})
    record = await polos.wait(handle.id, timeout_seconds=20)
    assert record["status"] == "failed"
    assert "(after 4 attempts)" in record["error"]
    assert len(model.requests) == 4


@pytest.mark.parametrize("kind", ["malformed_arguments", "unknown_tool"])
async def test_a_broken_tool_call_goes_back_to_the_model(polos: Polos, model: ModelServer, kind: Any) -> None:
    agent = Agent(id="e2e-faulty-tools", provider="openai", model="gpt-4o", tools=[weather])
    model.script(ToolFault(kind))
    model.says("I see.", times=None)
    result = await agent.run(polos, "Weather?")
    assert [found.status for found in result.tool_results] == ["failed"]
    assert result.result == "I see."
    assert "Error: " in str(model.requests[-1].body)


# -- what llmock does not do


def _chunks(*deltas: dict[str, Any], finish: str) -> list[bytes]:
    fixed = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    return [f"data: {json.dumps({**fixed, 'choices': [choice]})}\n\n".encode() for choice in choices]


async def test_an_answer_cut_after_its_last_word_and_before_its_usage_is_used(
    polos: Polos, told: Recorder
) -> None:
    """It was paid for; its tokens are estimated."""
    agent = Agent(id="e2e-cut-late", provider="groq", model="m", provider_base_url=told.url)
    told.answers(Answer(pieces=_chunks({"content": "hello "}, {"content": "you"}, finish="stop"), cut=True))
    stream = await agent.stream(polos, "hi")
    result = await stream.result()
    assert result.result == "hello you"
    assert len(told.seen) == 1
    assert result.usage.total_tokens > 0


async def test_two_calls_with_one_index_are_two_calls(polos: Polos, told: Recorder) -> None:
    asked: list[str] = []

    @tool(id="e2e_city", description="Look a city up")
    async def look_up(ctx: WorkflowContext, input: City) -> str:
        asked.append(input.city)
        return "mild"

    def call(call_id: str, city: str) -> dict[str, Any]:
        function = {"name": "e2e_city", "arguments": json.dumps({"city": city})}
        return {"tool_calls": [{"index": 0, "id": call_id, "type": "function", "function": function}]}

    agent = Agent(id="e2e-index", provider="groq", model="m", tools=[look_up], provider_base_url=told.url)
    told.answers(
        Answer(
            pieces=[*_chunks(call("a", "Rome"), call("b", "Oslo"), finish="tool_calls"), b"data: [DONE]\n\n"]
        ),
        Answer(pieces=[*_chunks({"content": "Mild."}, finish="stop"), b"data: [DONE]\n\n"]),
    )
    stream = await agent.stream(polos, "hi")
    assert (await stream.result()).result == "Mild."
    assert sorted(asked) == ["Oslo", "Rome"]
