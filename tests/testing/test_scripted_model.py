"""What a scripted model answers, and what it remembers; guards that keep real ones from being asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from polos import ToolCall, Usage
from polos.errors import ModelError, ModelErrorKind, ModelRequestForbiddenError
from polos.models import call
from polos.models.permission import check_allowed
from polos.models.request import Chunk, ModelAnswer, ModelRequest
from polos.testing import (
    MovableClock,
    ScriptedModel,
    allow_model_requests,
    answer,
    call_every_tool,
    error,
    forbid_model_requests,
    sample_of,
    tool_call,
)

TOOL = {
    "type": "function",
    "name": "book",
    "description": "",
    "parameters": {
        "type": "object",
        "properties": {
            "day": {"type": "string", "format": "date"},
            "guests": {"type": "integer", "minimum": 2},
        },
        "required": ["day", "guests"],
    },
}


def request(**values: Any) -> ModelRequest:
    asked = {"provider": "openai", "model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
    return ModelRequest(**{**asked, **values})


class Forecast(BaseModel):
    city: str
    degrees: float = 20.0


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("Hello", "Hello"),
        (Forecast(city="Paris"), '{"city": "Paris", "degrees": 20.0}'),
        ({"city": "Paris"}, '{"city": "Paris"}'),
        (answer(chunks=["He", "llo"]), "Hello"),
        (ModelAnswer(content="Hello"), "Hello"),
        (lambda asked: f"you said {asked.messages[-1]['content']}", "you said Hi"),
    ],
)
async def test_what_may_be_written_as_an_answer(script: Any, text: str) -> None:
    made = await ScriptedModel([script]).generate(request())

    assert (made.content, made.tool_calls, made.stop_reason) == (text, [], "stop")
    assert made.raw_output == [{"role": "assistant", "content": text}]
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens > 0


async def test_tool_calls_have_ids_that_no_other_call_has() -> None:
    model = ScriptedModel([[tool_call("a", n=1), tool_call("a", n=1)], answer("Wait.", tool_call("a"))])
    first, second = await model.generate(request()), await model.generate(request())

    ids = [one.call_id for one in [*first.tool_calls, *second.tool_calls]]
    assert len(set(ids)) == 3
    assert [item["call_id"] for item in first.raw_output] == ids[:2]
    assert (second.content, second.stop_reason) == ("Wait.", "tool_calls")


async def test_a_call_as_no_python_can_write_it_is_passed_on() -> None:
    odd = ToolCall(id="same", call_id="same", function={"name": "never offered", "arguments": "{no json"})

    assert (await ScriptedModel([odd]).generate(request())).tool_calls == [odd]


async def test_a_function_answers_every_call() -> None:
    async def script(asked: ModelRequest) -> str:
        return asked.model

    model = ScriptedModel(script)
    assert [(await model.generate(request(model=name))).content for name in ("a", "b")] == ["a", "b"]
    assert [asked.model for asked in model.calls] == ["a", "b"]


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (401, ModelErrorKind.AUTHENTICATION, False),
        (408, ModelErrorKind.TIMEOUT, True),
        (429, ModelErrorKind.RATE_LIMIT, True),
        (503, ModelErrorKind.UNAVAILABLE, True),
    ],
)
async def test_an_error_is_one_of_a_provider(status: int, kind: ModelErrorKind, retryable: bool) -> None:
    with pytest.raises(ModelError) as raised:
        await ScriptedModel([error(status, retry_after_seconds=3)]).generate(request())

    assert (raised.value.kind, raised.value.retryable) == (kind, retryable)
    assert (raised.value.status_code, raised.value.retry_after_seconds) == (status, 3)


async def test_usage_and_reason_are_what_the_script_says() -> None:
    used = Usage(input_tokens=5, output_tokens=7, total_tokens=12, cost=0.25)
    made = await ScriptedModel([answer("x", usage=used, stop_reason="length")]).generate(request())

    assert (made.usage, made.stop_reason) == (used, "length")


@pytest.mark.parametrize("text", ["It is sunny.", "  two  spaces \n", "x", "a\u2028b ", " "])
async def test_a_streamed_text_comes_in_pieces_that_add_up(text: str) -> None:
    heard: list[Chunk] = []
    made = await ScriptedModel([answer(text, tool_call("a"))]).generate(request(), on_chunk=heard.append)

    assert "".join(piece for piece in heard if isinstance(piece, str)) == made.content == text
    assert "" not in heard
    assert heard[-1] == made.tool_calls[0]


async def test_a_pause_that_is_too_long_is_a_timeout() -> None:
    heard: list[Chunk] = []
    slow = answer(chunks=["a", "b"], pause_seconds=0.002)
    model = ScriptedModel([slow, slow, slow])
    with pytest.raises(ModelError, match=r"said nothing for 0\.001 seconds") as raised:
        await model.generate(request(chunk_timeout_seconds=0.001), on_chunk=heard.append)
    assert raised.value.kind is ModelErrorKind.TIMEOUT
    assert heard == []

    with pytest.raises(ModelError, match="said nothing"):
        await model.generate(request(timeout_seconds=0.003), on_chunk=heard.append)
    assert heard == ["a"]
    assert (await model.generate(request())).content == "ab"


async def test_nothing_is_left_of_a_script_that_has_ended() -> None:
    model = ScriptedModel(["one"])
    model.add("two")
    assert model.remaining == 2
    assert [(await model.generate(request())).content for _ in range(2)] == ["one", "two"]

    with pytest.raises(ModelError, match="no answer for call 3") as raised:
        await model.generate(request())
    assert not raised.value.retryable
    assert len(model.calls) == 3


@pytest.mark.parametrize("item", [5, None, [], ["text"], object(), ScriptedModel])
def test_what_is_no_answer_is_refused_when_it_is_written(item: Any) -> None:
    with pytest.raises(TypeError, match="is no answer of a model: write"):
        ScriptedModel([item])


def test_chunks_that_are_not_the_text_are_refused() -> None:
    with pytest.raises(ValueError, match="leave one of them out"):
        answer("abc", chunks=["a", "b"])


def test_the_last_call_of_none_says_so() -> None:
    with pytest.raises(AssertionError, match="was not called"):
        _ = ScriptedModel([]).last_call


# -- every tool


async def test_every_tool_is_called_once_and_then_answered() -> None:
    model = ScriptedModel(call_every_tool("Done."))
    other = {**TOOL, "name": "pay"}
    first = await model.generate(request(tools=[TOOL, other, {"type": "web_search"}]))
    assert [one.function.name for one in first.tool_calls] == ["book", "pay"]
    assert first.tool_calls[0].function.arguments == '{"day": "2024-01-02", "guests": 2}'

    second = await model.generate(request(tools=[TOOL, other], messages=first.raw_output))
    assert (second.content, second.tool_calls) == ("Done.", [])


async def test_an_output_schema_is_answered_with_data() -> None:
    model = ScriptedModel(call_every_tool())
    made = await model.generate(request(output_schema=Forecast.model_json_schema()))

    assert Forecast.model_validate_json(made.content or "") == Forecast(city="text")


class Node(BaseModel):
    value: int
    kind: str | None
    children: list[Node]
    parent: Node | None


@pytest.mark.parametrize(
    ("schema", "sample"),
    [
        ({"enum": ["b", "a"]}, "b"),
        ({"const": 0}, 0),
        ({"type": "string", "default": "x"}, "x"),
        ({"type": "string", "minLength": 6, "maxLength": 7}, "textxx"),
        ({"type": "integer", "exclusiveMinimum": 4, "multipleOf": 5}, 5),
        ({"type": "number", "maximum": -1}, -1.0),
        ({"type": ["null", "string"]}, None),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
        (
            {"allOf": [{"properties": {"a": {"type": "null"}}, "required": ["a"], "type": "object"}]},
            {"a": None},
        ),
        ({}, None),
    ],
)
def test_a_sample_fits_its_schema(schema: dict[str, Any], sample: Any) -> None:
    assert sample_of(schema) == sample


def test_a_schema_that_needs_itself_somewhere_has_a_sample() -> None:
    assert Node.model_validate(sample_of(Node.model_json_schema())).children == []


def test_a_schema_that_always_needs_itself_has_none() -> None:
    endless = {
        "$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}}
    }

    with pytest.raises(ValueError, match="always needs itself"):
        sample_of({**endless, "$ref": "#/$defs/a"})


# -- guards


async def test_a_forbidden_request_says_how_to_allow_it() -> None:
    asked = request(provider_kwargs={"api_key": "key"})
    with forbid_model_requests(), pytest.raises(ModelRequestForbiddenError, match="ask openai") as raised:
        await call.generate(asked)
    assert "polos.testing.runtime(model=[...])" in str(raised.value)
    assert "allow_model_requests" in str(raised.value)


@pytest.mark.parametrize("url", ["http://localhost:1/v1", "http://127.0.0.1:1/v1", "http://[::1]:1/v1"])
def test_servers_of_this_machine_may_be_allowed(url: str) -> None:
    with forbid_model_requests():
        with pytest.raises(ModelRequestForbiddenError, match=r"are forbidden\. Give"):
            check_allowed("openai", "gpt-4o", url)
        with allow_model_requests(local_only=True):
            check_allowed("openai", "gpt-4o", url)
            with pytest.raises(ModelRequestForbiddenError, match="but to servers of this machine"):
                check_allowed("openai", "gpt-4o", None)
            with pytest.raises(ModelRequestForbiddenError, match="at https://localhost"):
                check_allowed("openai", "gpt-4o", "https://localhost.example.com/v1")
        with allow_model_requests():
            check_allowed("openai", "gpt-4o", None)


def test_a_guard_that_has_ended_leaves_what_was_before() -> None:
    outer = forbid_model_requests()
    with allow_model_requests(), forbid_model_requests():
        pass
    with pytest.raises(ModelRequestForbiddenError):
        check_allowed("openai", "gpt-4o", None)
    outer.end()
    outer.end()
    check_allowed("openai", "gpt-4o", None)


async def test_the_clock_of_a_model_measures_its_pauses() -> None:
    model = ScriptedModel([answer("late", pause_seconds=3600)])
    model.clock = clock = MovableClock()
    asked = asyncio.ensure_future(model.generate(request(timeout_seconds=7200)))
    while not model.calls:
        await asyncio.sleep(0)
    await clock.advance(hours=1)

    assert (await asked).content == "late"
