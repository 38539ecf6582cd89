"""Real HTTP against a server that plays the providers."""

from __future__ import annotations

import time
from typing import Any

import pytest
from servers import TEST_KEY, ModelServer

from polos.errors import ModelError
from polos.models.call import generate
from polos.models.request import ModelRequest

PROVIDERS = {
    "openai": ("openai", "gpt-4o", None, "/v1/responses"),
    "openai chat": ("openai", "gpt-4o", "chat_completions", "/v1/chat/completions"),
    "anthropic": ("anthropic", "claude-sonnet-4-6", None, "/anthropic/v1/messages"),
    "gemini": ("gemini", "gemini-2.0-flash", None, "/gemini/v1beta/models/gemini-2.0-flash:generateContent"),
    "groq": ("groq", "llama-3.3-70b-versatile", None, "/groq/openai/v1/chat/completions"),
    "together": ("together", "meta-llama/Llama-3.3-70B", None, "/together/v1/chat/completions"),
}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
HELLO = [{"role": "user", "content": "hello"}]

each_provider = pytest.mark.parametrize("name", PROVIDERS)


def _request(name: str, messages: list[dict[str, Any]] | None = None, **fields: Any) -> ModelRequest:
    provider, model, llm_api, _ = PROVIDERS[name]
    return ModelRequest(
        provider=provider, model=model, provider_llm_api=llm_api, messages=messages or HELLO, **fields
    )


@each_provider
async def test_text_usage_and_path(server: ModelServer, name: str) -> None:
    server.says("good day to you")
    answer = await generate(_request(name, [{"role": "user", "content": "hello there my friend"}]))
    assert answer.content == "good day to you"
    assert answer.raw_output == [{"role": "assistant", "content": "good day to you"}]
    assert answer.stop_reason == "stop"
    assert answer.model == PROVIDERS[name][1]
    assert answer.usage.input_tokens == 5
    assert answer.usage.output_tokens > 0
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert [request.path for request in server.requests] == [PROVIDERS[name][3]]


@each_provider
async def test_a_call_may_be_held_back_until_its_connection_stands(server: ModelServer, name: str) -> None:
    held: list[int] = []

    async def hold() -> None:
        held.append(len(server.requests))

    async def never() -> None:
        raise RuntimeError("not now")

    server.says("good day to you")
    await generate(_request(name), before_send=hold)
    assert held == [0]
    with pytest.raises(ModelError, match="not now"):
        await generate(_request(name), before_send=never)
    assert len(server.requests) == 1


@each_provider
async def test_parallel_tool_calls_and_their_outputs_make_a_round_trip(
    server: ModelServer, name: str
) -> None:
    server.calls(("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"}))
    first = await generate(_request(name, system_prompt="be brief", tools=[WEATHER]))
    cities = [call.function.arguments for call in first.tool_calls]
    assert cities == ['{"city": "Paris"}', '{"city": "Rome"}']
    assert first.stop_reason == "tool_calls"

    outputs = [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"sunny {call.call_id}"}
        for call in first.tool_calls
    ]
    server.says("sunny in both")
    second = await generate(
        _request(name, [*HELLO, *first.raw_output, *outputs], system_prompt="be brief", tools=[WEATHER])
    )
    assert second.content == "sunny in both"
    sent = str(server.requests[-1].body)
    assert sent.count("be brief") == 1
    assert sent.count("hello") == 1
    for city in ("Paris", "Rome"):
        assert city in sent
    for output in outputs:
        assert output["output"] in sent


@each_provider
async def test_a_rate_limit_tells_when_to_come_back(server: ModelServer, name: str) -> None:
    server.fails(429, retry_after=7.5)
    with pytest.raises(ModelError) as caught:
        await generate(_request(name))
    error = caught.value
    assert (error.status_code, error.retryable, error.retry_after_seconds) == (429, True, 7.5)


@each_provider
@pytest.mark.parametrize("status", [500, 503, 529])
async def test_a_failing_provider_is_asked_once_and_may_be_asked_again(
    server: ModelServer, name: str, status: int
) -> None:
    server.fails(status, times=None)
    with pytest.raises(ModelError) as caught:
        await generate(_request(name))
    assert (caught.value.status_code, caught.value.retryable) == (status, True)
    assert len(server.requests) == 1


@each_provider
async def test_a_wrong_key_is_final_and_not_shown(server: ModelServer, name: str) -> None:
    server.fails(401, message=f"Incorrect API key provided: {TEST_KEY}")
    with pytest.raises(ModelError, match="_API_KEY") as caught:
        await generate(_request(name))
    assert not caught.value.retryable
    assert TEST_KEY not in str(caught.value)


@each_provider
async def test_a_refused_request_is_final(server: ModelServer, name: str) -> None:
    server.fails(400, message="temperature is too high")
    with pytest.raises(ModelError, match="temperature is too high") as caught:
        await generate(_request(name))
    assert (caught.value.status_code, caught.value.retryable) == (400, False)


@each_provider
async def test_a_hanging_provider_is_given_up(server: ModelServer, name: str) -> None:
    server.hangs(1.5)
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"0\.3 seconds") as caught:
        await generate(_request(name, timeout_seconds=0.3))
    assert caught.value.retryable
    assert time.monotonic() - started < 1.4


@pytest.mark.parametrize(
    "said",
    [
        {"code": "model_not_found", "message": "The model does not exist"},
        {"code": "not_found_error", "message": "model 'gpt-4o' not found, try pulling it first"},
    ],
)
async def test_an_unknown_model_is_final_and_does_not_make_us_try_the_other_api(
    server: ModelServer, said: dict[str, str]
) -> None:
    server.fails(404, **said)
    with pytest.raises(ModelError, match="model name") as caught:
        await generate(_request("openai"))
    assert not caught.value.retryable
    assert len(server.requests) == 1
