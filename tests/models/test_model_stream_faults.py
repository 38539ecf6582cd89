"""Streams that end early, report errors or come from servers that do not stream as asked."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop
from servers import (
    TEST_KEY,
    Answer,
    Recorder,
    anthropic_answer,
    chat_answer,
    gemini_answer,
    responses_answer,
    responses_text,
)
from test_model_stream_twins import (
    NO_TEXT,
    anthropic_pieces,
    call_delta,
    chat_pieces,
    gemini_pieces,
    make_request,
    responses_pieces,
    sse,
    text_delta,
)
from test_model_streams import Chunks

from polos.errors import ModelError
from polos.models.call import generate
from polos.models.request import Chunk, ModelAnswer

PIECES = {
    "openai": responses_pieces(responses_answer(responses_text("hello you"))),
    "openai chat": chat_pieces({"content": "hello "}, {"content": "you"}),
    "azure": chat_pieces({"content": "hello "}, {"content": "you"}),
    "groq": chat_pieces({"content": "hello "}, {"content": "you"}),
    "anthropic": anthropic_pieces((NO_TEXT, text_delta("hello "), text_delta("you"))),
    "gemini": gemini_pieces([{"text": "hello "}], [{"text": "you"}]),
    "ollama": [
        b'{"message": {"role": "assistant", "content": "hello "}, "done": false}\n',
        b'{"message": {"content": "you"}, "done": true, "prompt_eval_count": 1, "eval_count": 2}\n',
    ],
    "litellm": chat_pieces({"content": "hello "}, {"content": "you"}),
}
PATHS = dict.fromkeys(("anthropic", "gemini", "ollama", "azure"), "")
MODELS = {"litellm": {"model": "mistral/m", "provider_kwargs": {"api_key": "k"}}}
OWN_CLIENT = {"model": "hyperbolic/m", "tools": []}
"""A model LiteLLM reaches through a client of its own."""

each_wire = pytest.mark.parametrize("wire", PIECES)


async def ask(record: Recorder, wire: str, chunks: list[Chunk] | None = None, **fields: Any) -> ModelAnswer:
    fields = {**MODELS.get(wire, {}), **fields}
    request = make_request(record, wire, path=PATHS.get(wire, "/v1"), **fields)
    return await generate(request, on_chunk=(Chunks() if chunks is None else chunks).append)


async def _error(record: Recorder, wire: str, **fields: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await ask(record, wire, **fields)
    assert len(record.seen) == 1, "asked again"
    return caught.value


@each_wire
async def test_an_empty_stream_may_be_asked_for_again(record: Recorder, wire: str) -> None:
    record.answers(Answer(pieces=[]))
    error = await _error(record, wire)
    assert error.retryable
    assert "ended before the answer was complete" in str(error)


@each_wire
async def test_every_stream_that_is_cut_short_is_an_error(record: Recorder, wire: str) -> None:
    """Wherever it ends before the provider's last word, never is a part taken for the whole."""
    needed = {"openai": 0, "openai chat": 2, "azure": 2, "groq": 2, "litellm": 2, "anthropic": 1}.get(wire, 0)
    pieces = PIECES[wire]
    for length in range(1, len(pieces) - needed):
        record.seen.clear()
        record.answers(Answer(pieces=pieces[:length]))
        assert (await _error(record, wire)).retryable
    record.answers(Answer(pieces=pieces[: len(pieces) - needed]))
    assert (await ask(record, wire)).content == "hello you"


@each_wire
async def test_bytes_may_be_cut_anywhere(record: Recorder, wire: str) -> None:
    stream = b"".join(PIECES[wire])
    record.answers(Answer(pieces=(stream[at : at + 7] for at in range(0, len(stream), 7))))
    chunks = Chunks()
    assert (await ask(record, wire, chunks)).content == chunks.text == "hello you"


@each_wire
async def test_a_server_that_does_not_stream_has_all_passed_on_at_the_end(
    record: Recorder, wire: str
) -> None:
    whole = {
        "openai": responses_answer(responses_text("hello you")),
        "anthropic": anthropic_answer({"type": "text", "text": "hello you"}),
        "gemini": gemini_answer({"text": "hello you"}),
        "ollama": {"message": {"role": "assistant", "content": "hello you"}, "done": True, "eval_count": 1},
    }
    record.answers(Answer(whole.get(wire, chat_answer("hello you"))))
    chunks = Chunks()
    assert (await ask(record, wire, chunks)).content == "hello you"
    assert chunks == ["hello you"]


@each_wire
async def test_a_request_for_a_stream_is_that_of_a_plain_call_but_for_the_stream(
    record: Recorder, wire: str
) -> None:
    record.answers(Answer(pieces=PIECES[wire]))
    fields = {**MODELS.get(wire, {}), "idempotency_key": "run-1:turn-2", "max_output_tokens": 50}
    request = make_request(record, wire, path=PATHS.get(wire, "/v1"), **fields)
    await generate(request, on_chunk=Chunks().append)
    with pytest.raises(ModelError):  # a plain call cannot read a stream
        await generate(request)
    streamed, plain = record.seen
    stream_fields = {name: streamed.body.pop(name, None) for name in ("stream", "stream_options")}
    plain.body.pop("stream", None)
    assert streamed.body == plain.body
    assert stream_fields["stream"] is (None if wire == "gemini" else True)
    assert streamed.headers["idempotency-key"] == "run-1:turn-2"
    same = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "content-type", "idempotency-key")
    assert [streamed.headers.get(name) for name in same] == [plain.headers.get(name) for name in same]


@pytest.mark.parametrize("wire", ["openai chat", "azure", "groq", "litellm"])
async def test_usage_is_asked_for_where_streams_have_it_on_request_only(record: Recorder, wire: str) -> None:
    record.answers(Answer(pieces=PIECES[wire]))
    assert (await ask(record, wire)).usage.total_tokens == 18
    assert record.last.body["stream_options"] == {"include_usage": True}


async def test_anthropic_gets_the_same_token_limit_streamed_and_not(record: Recorder) -> None:
    record.answers(Answer(anthropic_answer({"type": "text", "text": "x"})))
    await generate(make_request(record, "anthropic", path=""))
    record.answers(Answer(pieces=PIECES["anthropic"]))
    await ask(record, "anthropic")
    assert record.seen[0].body["max_tokens"] == record.seen[1].body["max_tokens"]


async def test_structured_output_streams_as_its_json_text(record: Recorder) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    response = responses_answer(responses_text('{"a": 1}'))
    for wire, pieces in [
        ("openai", responses_pieces(response)),
        ("groq", chat_pieces({"content": '{"a"'}, {"content": ": 1}"})),
    ]:
        record.answers(Answer(pieces=pieces))
        chunks = Chunks()
        answer = await ask(record, wire, chunks, output_schema=schema, tools=[])
        assert answer.content == chunks.text == '{"a": 1}'
        assert len(chunks) == 2


OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
UNAVAILABLE = {"code": 503, "status": "UNAVAILABLE", "message": "busy", "details": [{"retryDelay": "13s"}]}
TOO_LONG = {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}
NO_MONEY = {"message": "no quota", "type": "insufficient_quota", "code": "insufficient_quota"}
RATE = {"type": "error", "code": "rate_limit_exceeded", "message": "slow down", "param": None}


@pytest.mark.parametrize(
    ("wire", "event", "status", "retryable", "retry_after"),
    [
        ("anthropic", OVERLOADED, 529, True, None),
        ("anthropic", {"type": "error", "error": {"type": "invalid_request_error"}}, 400, False, None),
        ("gemini", {"error": UNAVAILABLE}, 503, True, 13),
        ("openai", RATE, 429, True, None),
        ("openai", {"type": "error", "error": {"code": "server_error", "message": "x"}}, 500, True, None),
        ("openai chat", {"error": {"message": "we broke", "type": "server_error"}}, 500, True, None),
        ("openai chat", {"error": TOO_LONG}, 400, False, None),
        ("openai chat", {"error": NO_MONEY}, 429, False, None),
        ("groq", {"error": {"message": "what is this", "code": "odd"}}, None, True, None),
        ("litellm", {"error": {"code": "502", "message": "upstream"}, "choices": []}, 502, True, None),
        ("ollama", {"error": "model runner has stopped"}, None, True, None),
    ],
)
async def test_an_error_in_mid_stream_is_the_providers(
    record: Recorder, wire: str, event: Any, status: int | None, retryable: bool, retry_after: float | None
) -> None:
    frame = json.dumps(event).encode() + b"\n" if wire == "ollama" else sse(event)[0]
    record.answers(Answer(pieces=[*PIECES[wire][:1], frame, *PIECES[wire][1:]]))
    error = await _error(record, wire)
    assert (error.status_code, error.retryable) == (status, retryable)
    assert error.retry_after_seconds == retry_after


async def test_an_error_a_server_writes_without_the_form_of_an_event_is_understood(record: Recorder) -> None:
    record.answers(Answer(pieces=[*PIECES["groq"][:2], b'{"error": {"message": "out of memory"}}\n\n']))
    assert "out of memory" in str(await _error(record, "groq"))


async def test_a_failed_response_says_why(record: Recorder) -> None:
    failed = responses_answer(status="failed", error={"code": "server_error", "message": "we broke"})
    record.answers(Answer(pieces=responses_pieces(failed, ending="failed")))
    error = await _error(record, "openai")
    assert error.retryable
    assert "we broke" in str(error)


@pytest.mark.parametrize(
    "garbage", [b"data: [1]\n\n", b"data: {]\n\n", b"data: \xff\xfe\n\n", b"data: 7\n\n"]
)
@pytest.mark.parametrize("wire", ["openai", "groq", "anthropic"])
async def test_garbage_in_a_stream_may_go_away(record: Recorder, wire: str, garbage: bytes) -> None:
    record.answers(Answer(pieces=[*PIECES[wire][:1], garbage, *PIECES[wire][1:]]))
    error = await _error(record, wire)
    assert error.retryable
    assert "no JSON" in str(error)


@each_wire
async def test_events_of_a_shape_nobody_expects_may_go_away(record: Recorder, wire: str) -> None:
    strange = {
        "openai": {"type": "response.completed"},
        "anthropic": {"type": "content_block_delta", "index": 7},
        "gemini": {"candidates": [{"content": {"parts": [7]}}]},
        "ollama": {"message": 7},
    }
    event = strange.get(wire, {"choices": [{"delta": {"tool_calls": [7]}}]})
    frame = json.dumps(event).encode() + b"\n" if wire == "ollama" else sse(event)[0]
    record.answers(Answer(pieces=[*PIECES[wire][:-1], frame]))
    assert (await _error(record, wire)).retryable


async def test_an_answer_that_was_whole_when_the_connection_broke_is_used(record: Recorder) -> None:
    """It was paid for. Only the exact usage is lost, where the provider sends it last."""
    record.answers(Answer(pieces=PIECES["groq"][:-2], cut=True))
    answer = await ask(record, "groq")
    assert answer.content == "hello you"
    assert answer.usage.output_tokens == 3


async def test_a_provider_that_says_its_last_word_and_does_not_hang_up_is_not_waited_for(
    record: Recorder,
) -> None:
    ended = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield from PIECES["groq"]
        ended.wait(10)

    record.answers(Answer(pieces=pieces()))
    async with asyncio.timeout(5):
        assert (await ask(record, "groq")).content == "hello you"
    ended.set()


async def test_a_stream_may_take_longer_than_a_silence_is_allowed_to(record: Recorder) -> None:
    comments = threading.Event()

    def pieces() -> Iterator[bytes]:
        for piece in [*PIECES["groq"][:1], *[b": thinking\n\n"] * 4, *PIECES["groq"][1:]]:
            comments.wait(0.1)
            yield piece

    record.answers(Answer(pieces=pieces()))
    assert (await ask(record, "groq", chunk_timeout_seconds=0.4)).content == "hello you"


@pytest.mark.parametrize("refused", ["stream_options", "stream"])
async def test_a_server_that_refuses_what_it_does_not_know_about_streams_is_asked_without(
    record: Recorder, refused: str
) -> None:
    def answer(seen: Any) -> Answer:
        if refused in seen.body:
            said = {"message": f"Unsupported value: '{refused}'", "param": refused}
            return Answer({"error": said}, status=400)
        return Answer(pieces=PIECES["groq"]) if "stream" in seen.body else Answer(chat_answer("hello you"))

    record.answer = answer
    for _ in range(2):
        chunks = Chunks()
        assert (await ask(record, "openai chat", chunks)).content == chunks.text == "hello you"
    assert [refused in seen.body for seen in record.seen] == [True, False, False]


async def test_a_refusal_that_only_mentions_streams_does_not_end_streaming(record: Recorder) -> None:
    record.answers(Answer({"error": {"message": "no streams of insults"}}, status=400))
    with pytest.raises(ModelError, match="no streams of insults"):
        await ask(record, "openai chat")
    record.answers(Answer(pieces=PIECES["groq"]))
    await ask(record, "openai chat")
    assert record.last.body["stream"]


async def test_a_request_that_is_refused_for_another_reason_is_sent_once(record: Recorder) -> None:
    record.answers(Answer({"error": {"message": "temperature is too high"}}, status=400))
    assert not (await _error(record, "openai chat")).retryable


@pytest.mark.parametrize(
    ("wire", "fields"),
    [
        ("openai", {}),
        ("openai chat", {}),
        ("anthropic", {}),
        ("gemini", {}),
        ("ollama", {}),
        ("litellm", OWN_CLIENT),
    ],
)
async def test_a_cancelled_stream_is_closed_at_once(
    record: Recorder, wire: str, fields: dict[str, Any]
) -> None:
    """The provider stops generating when its client is gone."""
    going = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield from PIECES[wire][:1]
        while not record.hung_up.wait(0.02):
            going.set()
            yield b": on\n"

    record.answers(Answer(pieces=pieces()))
    task = asyncio.create_task(ask(record, wire, **fields))
    async with asyncio.timeout(10):
        await asyncio.to_thread(going.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(record.hung_up.wait, 10)
    assert record.hung_up.is_set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("wire", ["openai", "openai chat", "anthropic", "litellm"])
async def test_what_the_listener_raises_ends_the_call_as_it_is(record: Recorder, wire: str) -> None:
    class MineError(Exception):
        pass

    def refuse(_: Chunk) -> None:
        raise MineError("not this")

    record.answers(Answer(pieces=PIECES[wire]))
    request = make_request(record, wire, path=PATHS.get(wire, "/v1"), **MODELS.get(wire, {}))
    with pytest.raises(MineError, match="not this"):
        await generate(request, on_chunk=refuse)
    assert len(record.seen) == 1


async def test_a_server_without_responses_is_asked_for_a_stream_of_chat(record: Recorder) -> None:
    record.answer = lambda seen: (
        Answer({"detail": "Not Found"}, status=404)
        if seen.path == "/v1/responses"
        else Answer(pieces=PIECES["groq"])
    )
    chunks = Chunks()
    assert (await ask(record, "openai", chunks)).content == chunks.text == "hello you"


def test_streams_on_uvloop(record: Recorder) -> None:
    record.answers(Answer(pieces=PIECES["anthropic"]))
    chunks = Chunks()
    assert uvloop.run(ask(record, "anthropic", chunks)).content == chunks.text == "hello you"


async def test_connections_are_kept_between_streams(record: Recorder) -> None:
    record.answer = lambda _: Answer(pieces=PIECES["groq"])
    for _ in range(3):
        await ask(record, "groq")
    assert len({seen.client for seen in record.seen}) == 1


async def test_streams_at_once_are_not_mixed_up(record: Recorder) -> None:
    def answer(seen: Any) -> Answer:
        said = seen.body["messages"][-1]["content"]
        deltas = [{"content": f"{said} {number} "} for number in range(30)]
        return Answer(pieces=chat_pieces(*deltas, call_delta(0, said, "f", "{}"), finish="tool_calls"))

    record.answer = answer
    heard = [Chunks() for _ in range(20)]
    answers = await asyncio.gather(
        *(
            ask(record, "groq", heard[index], messages=[{"role": "user", "content": f"n{index}"}])
            for index in range(20)
        )
    )
    for index, (answer_, chunks) in enumerate(zip(answers, heard, strict=True)):
        assert answer_.content == chunks.text == "".join(f"n{index} {number} " for number in range(30))
        assert chunks.tool_calls[0].call_id == f"n{index}"


@pytest.mark.parametrize("model", ["perplexity/m", "openrouter/m", "hyperbolic/m"])
async def test_providers_of_litellms_naming_are_streamed(record: Recorder, model: str) -> None:
    """The first two through our connections, the last through LiteLLM's own client."""
    record.answers(Answer(pieces=PIECES["groq"]))
    chunks = Chunks()
    answer = await ask(record, "litellm", chunks, model=model)
    assert answer.content == chunks.text == "hello you"
    assert len(chunks) == 2
    assert answer.usage.total_tokens == 18
    assert record.last.body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("model", ["perplexity/m", "nvidia_nim/m", "openrouter/m", "hyperbolic/m"])
async def test_a_provider_of_litellms_naming_whose_stream_breaks_is_asked_once(
    record: Recorder, model: str
) -> None:
    record.answers(Answer(pieces=PIECES["groq"][:2]))
    assert (await _error(record, "litellm", model=model)).retryable


PROGRAM = """
    import asyncio, sys
    from polos.errors import ModelError
    from polos.models.call import generate
    from polos.models.request import ModelRequest

    request = ModelRequest(provider="groq", model="m", messages=[{"role": "user", "content": "x"}],
                           provider_base_url=sys.argv[1])

    async def main():
        await generate(request, on_chunk=print)
        try:
            await generate(request, on_chunk=print)
        except ModelError as error:
            print(error.retryable)
        begun = asyncio.Event()
        call = asyncio.create_task(generate(request, on_chunk=lambda chunk: begun.set()))
        await begun.wait()
        call.cancel()
        await asyncio.wait([call])
        print(call.cancelled())
        begun.clear()
        asyncio.create_task(generate(request, on_chunk=lambda chunk: begun.set()))
        await begun.wait()

    asyncio.run(main())
"""


def test_a_program_whose_streams_end_break_and_are_abandoned_prints_nothing_of_its_own_accord(
    record: Recorder,
) -> None:
    """Neither unclosed connections nor destroyed tasks."""

    def endless() -> Iterator[bytes]:
        yield from PIECES["groq"][:2]
        while True:
            yield b": on\n"
            threading.Event().wait(0.05)

    whole, broken = Answer(pieces=PIECES["groq"]), Answer(pieces=PIECES["groq"][:1], cut=True)
    record.answers(whole, broken, Answer(pieces=endless()), Answer(pieces=endless()))
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", textwrap.dedent(PROGRAM), f"{record.url}/v1"],
        env={**os.environ, "GROQ_API_KEY": TEST_KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.split(), done.stderr, done.returncode) == (
        ["hello", "you", "hello", "True", "True"],
        "",
        0,
    )
