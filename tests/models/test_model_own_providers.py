"""Providers of the user's own, and ours through the same interface."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from polos.llm.providers import LLMProvider, LLMResponse, get_provider, register_provider
from servers import Answer, ModelServer, Recorder, chat_answer
from test_model_streams import Chunks

from polos import Agent
from polos.errors import ModelError, ModelErrorKind
from polos.models import providers
from polos.models.call import generate
from polos.models.request import ModelRequest

HELLO = [{"role": "user", "content": "hello"}]
CALL = {"call_id": "", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
USAGE = {"input_tokens": 5, "output_tokens": 2}


class Mine(LLMProvider):
    """Answers as told, and keeps what it was asked."""

    seen: list[dict[str, Any]] = []  # noqa: RUF012 - of the class, for the object is made elsewhere
    answers: Any = LLMResponse("hello", USAGE)
    pieces: Any = None

    def __init__(self, base_url: str | None = None, llm_api: str | None = None) -> None:
        self.options = (base_url, llm_api)

    async def generate(self, messages: Any, model: str, *args: Any, **options: Any) -> LLMResponse:
        type(self).seen.append({"messages": messages, "model": model, "self": self, **options})
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers

    def convert_history_messages(self, messages: Any) -> Any:
        return [{"converted": True, **item} for item in messages]


class Streaming(Mine):
    async def stream(self, messages: Any, model: str, **options: Any) -> AsyncIterator[dict[str, Any]]:
        for kind, data in self.pieces:
            if kind == "sleep":
                await asyncio.sleep(data)
            else:
                yield {"type": kind, "data": data}


@pytest.fixture
def own() -> Iterator[None]:
    before = dict(providers._added)
    register_provider("Mine")(Mine)
    register_provider("streaming")(Streaming)
    Mine.seen, Mine.answers = [], LLMResponse("hello", USAGE)
    yield
    providers._added.clear()
    providers._added.update(before)


def _request(provider: str = "mine", **fields: Any) -> ModelRequest:
    return ModelRequest(**{"provider": provider, "model": "m-1", "messages": HELLO, **fields})


async def test_an_answer_is_ours(own: None) -> None:
    Mine.answers = LLMResponse("so", USAGE, [CALL, CALL], model="m-1-0")
    answer = await generate(_request())
    first, second = answer.tool_calls
    assert answer.content == "so"
    assert first.function.arguments == '{"x": 1}'
    assert first.call_id
    assert first.call_id != second.call_id
    assert (answer.usage.input_tokens, answer.usage.total_tokens, answer.usage.cost) == (5, 7, None)
    assert (answer.model, answer.stop_reason) == ("m-1-0", "tool_calls")
    assert [item.get("type", "message") for item in answer.raw_output] == ["message", *["function_call"] * 2]


async def test_the_interface_is_given_everything(own: None) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "1"}
    schema = {"type": "object", "properties": {}}
    fields = {
        "messages": [*HELLO, call, output],
        "tools": [{"type": "function", "name": "f"}],
        "system_prompt": "be brief",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 7,
        "output_schema": schema,
        "output_schema_name": "Nothing",
        "provider_base_url": "http://mine",
        "provider_llm_api": "odd",
        "provider_kwargs": {"seed": 1},
    }
    await generate(_request(**fields))
    [seen] = Mine.seen
    assert seen["messages"] == [{"converted": True, **item} for item in (*HELLO, call)]
    assert seen["tool_results"] == [output]
    assert seen["agent_config"]["system_prompt"] == "be brief"
    assert (seen["model"], seen["temperature"], seen["top_p"], seen["max_tokens"], seen["seed"]) == (
        "m-1",
        0.5,
        0.9,
        7,
        1,
    )
    assert (seen["tools"], seen["output_schema"], seen["output_schema_name"]) == (
        fields["tools"],
        schema,
        "Nothing",
    )
    assert seen["self"].options == ("http://mine", "odd")


async def test_one_object_serves_all_calls(own: None) -> None:
    await generate(_request())
    await generate(_request())
    await generate(_request(provider_base_url="http://other"))
    first, second, third = (seen["self"] for seen in Mine.seen)
    assert first is second
    assert third is not first


async def test_what_does_not_stream_comes_at_the_end(own: None) -> None:
    Mine.answers = LLMResponse("hello", USAGE, [CALL])
    chunks = Chunks()
    answer = await generate(_request(), on_chunk=chunks.append)
    assert chunks.text == "hello"
    assert chunks.tool_calls == answer.tool_calls


async def test_a_stream_is_passed_on(own: None) -> None:
    Streaming.pieces = [
        ("text_delta", {"content": "hel"}),
        ("text_delta", {"content": "lo"}),
        ("tool_call", {"tool_call": CALL}),
        ("done", {"usage": USAGE, "model": "m", "stop_reason": "tool_calls"}),
    ]
    chunks = Chunks()
    answer = await generate(_request("streaming"), on_chunk=chunks.append)
    assert chunks.text == answer.content == "hello"
    assert chunks.tool_calls == answer.tool_calls
    assert len(chunks) == 3
    assert answer.usage.total_tokens == 7


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ([("text_delta", {"content": "hel"})], "without a 'done' event"),
        ([("text_delta", {"content": "hel"}), ("error", {"error": "we broke"})], "we broke"),
        ([("text_delta", {"content": "hel"}), ("sleep", 30)], "silent for 0.05 seconds"),
    ],
)
async def test_a_stream_that_breaks_is_tried_again(own: None, pieces: Any, says: str) -> None:
    Streaming.pieces = pieces
    with pytest.raises(ModelError, match=says) as caught:
        await generate(_request("streaming", chunk_timeout_seconds=0.05), on_chunk=lambda _: None)
    assert caught.value.retryable


class _SdkError(Exception):
    """As the clients of providers raise them."""

    def __init__(self, status: int) -> None:
        super().__init__("too many")
        self.response = httpx.Response(status, headers={"retry-after": "7"})
        self.status_code = status


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (_SdkError(429), ModelErrorKind.RATE_LIMIT, True),
        (_SdkError(401), ModelErrorKind.AUTHENTICATION, False),
        (httpx.ReadError("reset"), ModelErrorKind.UNAVAILABLE, True),
        (ConnectionResetError("reset"), ModelErrorKind.UNAVAILABLE, True),
        (TimeoutError(), ModelErrorKind.TIMEOUT, True),
        (ValueError("a bug"), ModelErrorKind.BAD_REQUEST, False),
        (ModelError("as I say", retryable=True), ModelErrorKind.BAD_REQUEST, True),
    ],
)
async def test_its_errors_are_understood(
    own: None, error: Exception, kind: ModelErrorKind, retryable: bool
) -> None:
    Mine.answers = error
    with pytest.raises(ModelError) as caught:
        await generate(_request())
    assert (caught.value.kind, caught.value.retryable) == (kind, retryable)
    if isinstance(error, _SdkError) and retryable:
        assert caught.value.retry_after_seconds == 7


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"content": "x"}, "must return an LLMResponse"),
        (LLMResponse("x", {"input_tokens": "many"}), "usage must hold numbers"),
        (LLMResponse("x", tool_calls=["f"]), "cannot be read"),  # type: ignore[list-item]
        (LLMResponse(), "neither text nor tool calls"),
        (LLMResponse("hel", stop_reason="content_filter"), "content filter"),
    ],
)
async def test_an_answer_of_no_use_is_an_error(own: None, answer: Any, says: str) -> None:
    Mine.answers = answer
    with pytest.raises(ModelError, match=says):
        await generate(_request())


async def test_it_may_have_prices(
    own: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, litellm_loaded: None
) -> None:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"mine/m-1": {"input_cost_per_token": 1, "output_cost_per_token": 10}}))
    monkeypatch.setenv("POLOS_MODEL_PRICES", str(path))
    assert (await generate(_request())).usage.cost == 25
    Mine.answers = LLMResponse("x", {**USAGE, "cost": 0.5})
    assert (await generate(_request())).usage.cost == 0.5


async def test_it_is_held_back_until_the_call_may_go_out(own: None) -> None:
    async def not_now() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await generate(_request(), before_send=not_now)
    assert Mine.seen == []


def test_an_agent_may_use_it(own: None) -> None:
    assert Agent(id="own-provider-agent", provider="MINE", model="m").provider == "mine"


def test_what_cannot_be_registered(own: None) -> None:
    with pytest.raises(ValueError, match="built in"):
        register_provider("OpenAI")(Mine)
    with pytest.raises(ValueError, match="Mine already"):
        register_provider("mine")(Streaming)
    with pytest.raises(ValueError, match="cannot be called"):
        register_provider("a/b")(Mine)
    with pytest.raises(TypeError, match="subclass of LLMProvider"):
        register_provider("other")(dict)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="register_provider"):
        get_provider("nobody")


async def test_get_provider_gives_both_kinds(own: None, record: Recorder) -> None:
    assert isinstance(get_provider("mine", base_url="http://x"), Mine)
    groq = get_provider("Groq", base_url=f"{record.url}/v1")
    record.answers(Answer(chat_answer("hello")))
    results = [{"type": "function_call_output", "call_id": "c", "output": "1"}]
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    answer = await groq.generate(
        [*HELLO, call], "m", temperature=0.5, agent_config={"system_prompt": "sys"}, tool_results=results
    )
    assert (answer.content, answer.usage["total_tokens"]) == ("hello", 18)  # type: ignore[index]
    assert [message["role"] for message in record.last.body["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
    ]
    assert answer.raw_output[-1] == {"role": "assistant", "content": "hello"}  # type: ignore[index]


async def test_ours_streams_too(server: ModelServer) -> None:
    server.says("hello there you")
    events = [event async for event in get_provider("openai").stream(HELLO, "gpt-4o")]
    texts = [event["data"]["content"] for event in events if event["type"] == "text_delta"]
    assert "".join(texts) == "hello there you"
    assert len(texts) > 1
    assert events[-1]["type"] == "done"
    assert events[-1]["data"]["usage"]["output_tokens"] > 0


async def test_the_one_in_the_documentation_works(own: None) -> None:
    page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
    [program] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    defined: dict[str, Any] = {}
    exec(program, defined)
    assert defined["agent"].provider == "echo"
    assert (await generate(_request("echo"))).content == "hello"
