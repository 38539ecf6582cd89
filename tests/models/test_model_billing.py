"""Calls that failed after the answer had begun are billed, and the error says how much."""

from __future__ import annotations

from typing import Any

import pytest
from servers import Answer, Recorder, anthropic_answer, chat_answer, responses_answer, responses_text
from test_model_stream_faults import PIECES
from test_model_stream_twins import make_request, sse

from polos.errors import ModelError
from polos.models.call import generate
from polos.models.estimates import input_estimate
from polos.models.request import ModelRequest
from polos.types import Usage

CUT_AT = {"openai": 4, "openai chat": 2, "groq": 2, "anthropic": 4}
"""After how many pieces some of the text has come, and not all."""
PATHS = dict.fromkeys(("anthropic", "gemini", "ollama"), "")


async def _billed(
    record: Recorder, wire: str, answer: Answer, *, streamed: bool = True, **fields: Any
) -> Usage:
    record.answers(answer)
    request = make_request(record, wire, path=PATHS.get(wire, "/v1"), **fields)
    with pytest.raises(ModelError) as caught:
        await generate(request, on_chunk=(lambda _: None) if streamed else None)
    assert caught.value.usage is not None, caught.value
    return caught.value.usage


@pytest.mark.parametrize("wire", ["openai", "openai chat", "groq", "anthropic", "gemini", "ollama"])
async def test_a_stream_that_is_cut_is_billed_for_what_came(record: Recorder, wire: str) -> None:
    pieces = PIECES[wire][: CUT_AT.get(wire, -1)]
    usage = await _billed(record, wire, Answer(pieces=pieces, cut=True))
    assert usage.input_tokens > 0
    assert 1 <= usage.output_tokens <= 7
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


@pytest.mark.parametrize("wire", ["anthropic", "gemini"])
async def test_what_the_provider_counted_before_is_taken(record: Recorder, wire: str) -> None:
    usage = await _billed(record, wire, Answer(pieces=PIECES[wire][: CUT_AT.get(wire, -1)], cut=True))
    assert usage.input_tokens == 11
    assert usage.cost is not None
    assert usage.cost > 0


async def test_arguments_of_a_call_that_is_cut_count_too(record: Recorder) -> None:
    long_call = {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "x" * 400}}]}}]}
    usage = await _billed(record, "groq", Answer(pieces=sse(long_call), cut=True))
    assert usage.output_tokens == 100


async def test_a_refused_answer_is_billed_as_the_provider_counted(record: Recorder) -> None:
    refused = chat_answer(None)
    refused["choices"][0]["message"]["refusal"] = "no"
    usage = await _billed(record, "openai chat", Answer(refused), streamed=False, model="gpt-4o")
    assert (usage.input_tokens, usage.output_tokens) == (11, 7)
    assert usage.cost == pytest.approx((11 * 2.5 + 7 * 10) / 1_000_000)


async def test_an_empty_answer_is_billed(record: Recorder) -> None:
    usage = await _billed(record, "anthropic", Answer(anthropic_answer()), streamed=False)
    assert (usage.input_tokens, usage.output_tokens) == (11, 7)


async def test_a_failed_response_is_billed(record: Recorder) -> None:
    failed = responses_answer(status="failed", error={"code": "server_error", "message": "we broke"})
    usage = await _billed(record, "openai", Answer(failed), streamed=False, model="gpt-4o")
    assert usage.total_tokens == 18


async def test_an_answer_that_cannot_be_read_is_billed_for_its_input(record: Recorder) -> None:
    usage = await _billed(record, "groq", Answer(b"{"), streamed=False)
    assert usage.input_tokens > 0
    assert usage.output_tokens == 0


async def test_an_answer_whose_usage_is_missing_has_an_estimate(record: Recorder) -> None:
    answer = responses_answer(responses_text("x" * 400), usage=None)
    record.answers(Answer(answer))
    usage = (await generate(make_request(record, "openai", model="gpt-4o"))).usage
    assert usage.output_tokens == 100
    assert usage.cost is not None


async def test_a_request_that_was_never_answered_is_not_billed(record: Recorder) -> None:
    record.answers(Answer(cut=True))
    with pytest.raises(ModelError) as caught:
        await generate(make_request(record, "groq"))
    assert caught.value.usage is None


def test_images_are_not_counted_by_their_bytes() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 100_000}
    text = {"type": "input_text", "text": "x" * 40}
    request = ModelRequest(
        provider="openai", model="m", messages=[{"role": "user", "content": [text, image]}]
    )
    assert input_estimate(request) == 1010
