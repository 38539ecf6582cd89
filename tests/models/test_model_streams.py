"""Streamed calls over real HTTP, against a server that plays the providers."""

from __future__ import annotations

import time

import pytest
from servers import ModelServer
from test_model_conversations import HELLO, WEATHER, _request, each_provider

from polos.errors import ModelError
from polos.models.call import generate
from polos.models.request import Chunk, ModelAnswer
from polos.types import ToolCall

TEXT = "good day to you, grüß dich\n  and  a fine evening"


class Chunks(list[Chunk]):
    """What was told of a stream."""

    @property
    def text(self) -> str:
        return "".join(chunk for chunk in self if isinstance(chunk, str))

    @property
    def tool_calls(self) -> list[ToolCall]:
        return [chunk for chunk in self if isinstance(chunk, ToolCall)]


def comparable(answer: ModelAnswer) -> dict[str, object]:
    """The answer without the ids that a server makes up anew each time."""
    calls = [(call.type, call.function) for call in answer.tool_calls]
    items = [
        {key: value for key, value in item.items() if key not in ("id", "call_id")}
        for item in answer.raw_output
    ]
    return {**answer.model_dump(), "tool_calls": calls, "raw_output": items}


@each_provider
async def test_a_streamed_text_comes_in_pieces_and_ends_like_a_plain_one(
    server: ModelServer, name: str
) -> None:
    server.says(TEXT, times=2)
    plain = await generate(_request(name))
    chunks = Chunks()
    streamed = await generate(_request(name), on_chunk=chunks.append)
    assert streamed == plain
    assert len(chunks) > 3
    assert all(chunks)
    assert chunks.text == TEXT == streamed.content
    assert streamed.usage.output_tokens > 0
    assert len(server.requests) == 2


@each_provider
async def test_streamed_tool_calls_come_complete_and_are_those_of_the_answer(
    server: ModelServer, name: str
) -> None:
    calls = [("get_weather", {"city": "Besançon"}), ("get_weather", {"city": "Rome"}), ("get_weather", {})]
    server.calls(*calls, text="let me see")
    plain = await generate(_request(name, tools=[WEATHER]))
    server.calls(*calls, text="let me see")
    chunks = Chunks()
    streamed = await generate(_request(name, tools=[WEATHER]), on_chunk=chunks.append)
    assert comparable(streamed) == comparable(plain)
    assert chunks.text == "let me see"
    assert chunks.tool_calls == streamed.tool_calls == chunks[-3:]
    assert len({call.call_id for call in streamed.tool_calls}) == 3
    assert [item["call_id"] for item in streamed.raw_output[1:]] == [c.call_id for c in streamed.tool_calls]


@each_provider
async def test_a_call_id_the_conversation_has_is_told_as_the_fresh_one_of_the_answer(
    server: ModelServer, name: str
) -> None:
    server.calls(("get_weather", {"city": "Rome"}))
    first = await generate(_request(name, tools=[WEATHER]))
    output = {"type": "function_call_output", "call_id": first.tool_calls[0].call_id, "output": "sunny"}
    server.calls(("get_weather", {"city": "Rome"}))
    chunks = Chunks()
    again = await generate(
        _request(name, [*HELLO, *first.raw_output, output], tools=[WEATHER]), on_chunk=chunks.append
    )
    assert chunks.tool_calls == again.tool_calls
    assert again.tool_calls[0].call_id != first.tool_calls[0].call_id


@each_provider
async def test_a_streamed_call_may_be_held_back_until_its_connection_stands(
    server: ModelServer, name: str
) -> None:
    held: list[int] = []

    async def hold() -> None:
        held.append(len(server.requests))

    chunks = Chunks()
    server.says(TEXT)
    await generate(_request(name), before_send=hold, on_chunk=chunks.append)
    assert held == [0]


@each_provider
@pytest.mark.parametrize(
    ("kind", "what"),
    [("disconnect", "cut off"), ("truncate", "ended before"), ("malformed", "no JSON")],
)
async def test_a_stream_that_breaks_is_asked_for_once_and_may_be_again(
    server: ModelServer, name: str, kind: str, what: str
) -> None:
    server.says(TEXT)
    server.breaks(kind, after_chunks=6)
    chunks = Chunks()
    with pytest.raises(ModelError, match=what) as caught:
        await generate(_request(name), on_chunk=chunks.append)
    assert caught.value.retryable
    assert len(server.requests) == 1
    assert chunks
    assert TEXT.startswith(chunks.text)
    assert chunks.text != TEXT


@each_provider
async def test_a_stream_that_falls_silent_is_given_up_and_may_be_asked_again(
    server: ModelServer, name: str
) -> None:
    server.says(TEXT)
    server.breaks("stall", after_chunks=6, seconds=2)
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"silent for 0\.3 seconds") as caught:
        await generate(_request(name, chunk_timeout_seconds=0.3), on_chunk=Chunks().append)
    assert caught.value.retryable
    assert time.monotonic() - started < 1.9


async def test_a_stream_is_given_up_when_the_whole_call_takes_too_long(server: ModelServer) -> None:
    server.says(TEXT)
    server.breaks("stall", after_chunks=6, seconds=2)
    with pytest.raises(ModelError, match=r"no answer within 0\.3 seconds") as caught:
        await generate(_request("openai", timeout_seconds=0.3), on_chunk=Chunks().append)
    assert caught.value.retryable


@each_provider
async def test_a_refusal_before_the_stream_is_the_error_of_a_plain_call(
    server: ModelServer, name: str
) -> None:
    chunks = Chunks()
    server.fails(429, retry_after=7.5)
    with pytest.raises(ModelError) as caught:
        await generate(_request(name), on_chunk=chunks.append)
    error = caught.value
    assert (error.status_code, error.retryable, error.retry_after_seconds) == (429, True, 7.5)
    server.fails(503)
    with pytest.raises(ModelError) as caught:
        await generate(_request(name), on_chunk=chunks.append)
    assert (caught.value.status_code, caught.value.retryable) == (503, True)
    server.fails(400, message="temperature is too high")
    with pytest.raises(ModelError, match="temperature is too high") as caught:
        await generate(_request(name), on_chunk=chunks.append)
    assert not caught.value.retryable
    assert not chunks
    assert len(server.requests) == 3
