"""Every provider's way of turning a call down becomes the same few kinds, with advice."""

from __future__ import annotations

from typing import Any

import pytest
from servers import (
    Answer,
    Recorder,
    anthropic_answer,
    chat_answer,
    gemini_answer,
    responses_answer,
    responses_text,
)
from test_model_stream_twins import anthropic_pieces, chat_pieces, gemini_pieces, responses_pieces

from polos.errors import ModelError
from polos.errors import ModelErrorKind as Kind
from polos.models.call import generate
from polos.models.request import ModelRequest

PATHS = dict.fromkeys(("anthropic", "gemini", "ollama", "azure"), "")
MODELS = {
    "gemini": "gemini-2.5-flash",
    "anthropic": "claude-sonnet-4-6",
    "ollama": "llama3.1",
    "litellm": "mistral/m",
}
ADVICE = {
    Kind.AUTHENTICATION: "Check ",
    Kind.QUOTA: "check its plan and billing",
    Kind.UNKNOWN_MODEL: "Check the model name",
    Kind.CONTEXT_OVERFLOW: "shorten it",
    Kind.CONTENT_FILTER: "change the input",
    Kind.REFUSAL: "change the input",
    Kind.BAD_REQUEST: "would be refused again",
}


async def _error(record: Recorder, wire: str, answer: Answer, *, streamed: bool = False) -> ModelError:
    record.answers(answer)
    name, _, chat = wire.partition(" ")
    request = ModelRequest(
        provider=name,
        model=MODELS.get(name, "m"),
        messages=[{"role": "user", "content": "hello"}],
        provider_llm_api="chat_completions" if chat else None,
        provider_base_url=record.url + PATHS.get(name, "/v1"),
        provider_kwargs={"api_key": "key-of-test"} if name == "litellm" else {},
    )
    with pytest.raises(ModelError) as caught:
        await generate(request, on_chunk=(lambda _: None) if streamed else None)
    return caught.value


def _openai(message: str, code: str | None = None, kind: str = "invalid_request_error") -> Any:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _anthropic(message: str, kind: str = "invalid_request_error") -> Any:
    return {"type": "error", "error": {"type": kind, "message": message}}


def _gemini(code: int, status: str, message: str, **reason: Any) -> Any:
    return {"error": {"code": code, "message": message, "status": status, "details": [reason]}}


LONG = (
    "This model's maximum context length is 128000 tokens. However, your messages resulted in 140000 tokens."
)
LARGE = (
    "Request too large for model `m` in organization `o` on tokens per minute (TPM): Limit 6000, "
    "Requested 7000, please reduce your message size and try again."
)
FILTERED = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
POLICY = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}}
REFUSALS = [
    # Conversations that are too long.
    ("openai", 400, _openai("Your input exceeds the context window of this", "context_length_exceeded")),
    ("openai chat", 400, _openai(LONG, "context_length_exceeded")),
    ("openai chat", 400, _openai(LONG)),  # vLLM
    ("openai", 429, _openai(LARGE.replace("minute", "min"), "rate_limit_exceeded", "tokens")),
    ("azure", 400, _openai(LONG, "context_length_exceeded")),
    ("anthropic", 400, _anthropic("prompt is too long: 205210 tokens > 200000 maximum")),
    ("anthropic", 400, _anthropic("input length and `max_tokens` exceed context limit: 1 + 2 > 2")),
    ("anthropic", 413, _anthropic("Request exceeds the maximum size", "request_too_large")),
    (
        "gemini",
        400,
        _gemini(
            400,
            "INVALID_ARGUMENT",
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        ),
    ),
    ("groq", 413, _openai(LARGE, "rate_limit_exceeded", "tokens")),
    ("groq", 400, _openai("Please reduce the length of the messages …", "context_length_exceeded")),
    (
        "together",
        422,
        _openai("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000"),
    ),
    ("fireworks", 400, _openai("The prompt is too long: 140000, model maximum context length: 131071")),
    ("ollama", 400, {"error": "the input length exceeds the context length"}),
    ("litellm", 400, {"object": "error", "message": "too large for model with 32768 maximum context length"}),
]
WRONG_KEYS = [
    ("openai", 401, _openai("Incorrect API key provided: sk-123456789.", "invalid_api_key")),
    ("anthropic", 401, _anthropic("invalid x-api-key", "authentication_error")),
    ("anthropic", 403, _anthropic("Your API key may not use this resource", "permission_error")),
    (
        "gemini",
        400,
        _gemini(
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            reason="API_KEY_INVALID",
        ),
    ),
    ("groq", 401, _openai("Invalid API Key", "invalid_api_key")),
    ("together", 401, _openai("Invalid API key provided")),
    ("fireworks", 401, _openai("unauthorized", None, "error")),
    ("azure", 401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key"}}),
]
UNKNOWN_MODELS = [
    (
        "openai",
        404,
        _openai("The model `m` does not exist or you do not have access to it.", "model_not_found"),
    ),
    ("openai", 400, _openai("invalid model ID")),
    ("anthropic", 404, _anthropic("model: claude-9", "not_found_error")),
    ("gemini", 404, _gemini(404, "NOT_FOUND", "models/x is not found for API version v1beta")),
    (
        "groq",
        404,
        _openai("The model `m` does not exist or you do not have access to it.", "model_not_found"),
    ),
    ("together", 404, _openai("Unable to access model m. Please visit …", "model_not_available")),
    ("fireworks", 404, _openai("Model not found, inaccessible, and/or not deployed", "NOT_FOUND")),
    (
        "azure",
        404,
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}},
    ),
    ("ollama", 404, {"error": "model 'llama3.1' not found"}),
    ("openai chat", 400, _openai("m is not a valid model ID")),  # OpenRouter
]
FILTERS = [
    ("azure", 400, {"error": {"code": "content_filter", "message": FILTERED, "innererror": POLICY}}),
    (
        "openai",
        400,
        _openai("Invalid prompt: your prompt was flagged as potentially violating …", "invalid_prompt"),
    ),
    ("openai chat", 400, _openai("Your request was rejected as a result of our safety system.")),
    ("anthropic", 400, _anthropic("Output blocked by content filtering policy")),
]
EMPTY_ACCOUNTS = [
    (
        "openai",
        429,
        _openai("You exceeded your current quota, please check your plan.", "insufficient_quota"),
    ),
    ("anthropic", 400, _anthropic("Your credit balance is too low to access the Anthropic API.")),
    ("litellm", 402, {"error": {"message": "Insufficient Balance"}}),
]
BAD_REQUESTS = [
    ("openai", 400, _openai("Invalid schema for response_format 'x': …", "invalid_json_schema")),
    ("openai chat", 400, _openai("Unsupported value: 'temperature'", "unsupported_value")),
    ("anthropic", 400, _anthropic("tools.0.custom.input_schema: JSON schema is invalid")),
    ("gemini", 400, _gemini(400, "INVALID_ARGUMENT", 'Invalid JSON payload received. Unknown name "x"')),
    ("groq", 400, _openai("Failed to call a function.", "tool_use_failed")),
]
TURNED_DOWN = [
    (kind, *case)
    for kind, cases in {
        Kind.CONTEXT_OVERFLOW: REFUSALS,
        Kind.AUTHENTICATION: WRONG_KEYS,
        Kind.UNKNOWN_MODEL: UNKNOWN_MODELS,
        Kind.CONTENT_FILTER: FILTERS,
        Kind.QUOTA: EMPTY_ACCOUNTS,
        Kind.BAD_REQUEST: BAD_REQUESTS,
    }.items()
    for case in cases
]


@pytest.mark.parametrize(("kind", "wire", "status", "body"), TURNED_DOWN)
async def test_what_no_waiting_mends(record: Recorder, kind: Kind, wire: str, status: int, body: Any) -> None:
    error = await _error(record, wire, Answer(body, status=status))
    assert (error.kind, error.retryable, error.status_code) == (kind, False, status), error
    assert ADVICE[kind] in str(error)
    assert error.usage is None  # it costs nothing


@pytest.mark.parametrize(
    ("kind", "wire", "status", "body"),
    [
        (
            Kind.RATE_LIMIT,
            "openai",
            429,
            _openai("Rate limit reached for m", "rate_limit_exceeded", "tokens"),
        ),
        (Kind.RATE_LIMIT, "anthropic", 429, _anthropic("This request would exceed …", "rate_limit_error")),
        (
            Kind.RATE_LIMIT,
            "gemini",
            429,
            _gemini(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota"),
        ),
        (Kind.UNAVAILABLE, "anthropic", 529, _anthropic("Overloaded", "overloaded_error")),
        (Kind.UNAVAILABLE, "gemini", 503, _gemini(503, "UNAVAILABLE", "The model is overloaded.")),
        (Kind.UNAVAILABLE, "ollama", 500, {"error": "model runner has unexpectedly stopped"}),
        (Kind.TIMEOUT, "openai", 504, _openai("gateway timeout")),
    ],
)
async def test_what_waiting_may_mend(record: Recorder, kind: Kind, wire: str, status: int, body: Any) -> None:
    error = await _error(record, wire, Answer(body, status=status))
    assert (error.kind, error.retryable) == (kind, True), error


def _refusing(message: dict[str, Any]) -> dict[str, Any]:
    answer = chat_answer(None)
    answer["choices"][0]["message"] |= message
    return answer


def _ending(answer: dict[str, Any], reason: str) -> dict[str, Any]:
    answer["choices"][0]["finish_reason"] = reason
    return answer


def _gemini_ending(reason: str, *parts: Any) -> dict[str, Any]:
    answer = gemini_answer(*parts)
    answer["candidates"][0]["finishReason"] = reason
    return answer


NO_PART = {"type": "refusal", "refusal": "I will not"}
REFUSED_ITEM = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [NO_PART],
}
FILTERED_RESPONSE = responses_answer(
    responses_text("hel"), status="incomplete", incomplete_details={"reason": "content_filter"}
)
BLOCKED = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 11}}
WHY = {"type": "refusal", "category": "cyber", "explanation": "too odd"}
ODD_REFUSAL = {**anthropic_answer(stop_reason="refusal"), "stop_details": WHY}
UNUSABLE = [
    ("openai", Kind.REFUSAL, "I will not", responses_answer(REFUSED_ITEM)),
    ("openai chat", Kind.REFUSAL, "I will not", _refusing({"refusal": "I will not"})),
    ("groq", Kind.REFUSAL, "I will not", _refusing({"refusal": "I will not"})),
    ("anthropic", Kind.REFUSAL, "refused", anthropic_answer(stop_reason="refusal")),
    ("anthropic", Kind.REFUSAL, "too odd", ODD_REFUSAL),
    ("openai", Kind.CONTENT_FILTER, "filter", FILTERED_RESPONSE),
    ("azure", Kind.CONTENT_FILTER, "filter", _ending(chat_answer("hel"), "content_filter")),
    ("gemini", Kind.CONTENT_FILTER, "filter", _gemini_ending("SAFETY", {"text": "hel"})),
    ("gemini", Kind.CONTENT_FILTER, "filter", BLOCKED),
    ("openai", Kind.EMPTY, "neither text nor tool calls", responses_answer()),
    ("openai chat", Kind.EMPTY, "neither text nor tool calls", chat_answer(None)),
    ("anthropic", Kind.EMPTY, "neither text nor tool calls", anthropic_answer()),
    ("gemini", Kind.EMPTY, "neither text nor tool calls", gemini_answer({"text": ""})),
    ("together", Kind.EMPTY, "neither text nor tool calls", chat_answer("")),
    ("groq", Kind.EMPTY, "raise max_output_tokens", _ending(chat_answer(None), "length")),
]


@pytest.mark.parametrize(("wire", "kind", "says", "body"), UNUSABLE)
async def test_an_answer_that_is_none(record: Recorder, wire: str, kind: Kind, says: str, body: Any) -> None:
    error = await _error(record, wire, Answer(body))
    assert error.kind == kind, error
    assert says in str(error)
    assert ADVICE.get(kind, "") in str(error)
    assert error.retryable == (kind == Kind.EMPTY and "raise" not in says)


STREAMED = [
    ("openai", Kind.CONTENT_FILTER, responses_pieces(FILTERED_RESPONSE, ending="incomplete")),
    (
        "openai chat",
        Kind.REFUSAL,
        chat_pieces({"role": "assistant"}, {"refusal": "I will "}, {"refusal": "not"}),
    ),
    ("anthropic", Kind.REFUSAL, anthropic_pieces(stop_reason="refusal")),
    ("gemini", Kind.EMPTY, gemini_pieces([{"text": ""}])),
]


@pytest.mark.parametrize(("wire", "kind", "pieces"), STREAMED)
async def test_a_streamed_answer_that_is_none(
    record: Recorder, wire: str, kind: Kind, pieces: list[bytes]
) -> None:
    error = await _error(record, wire, Answer(pieces=pieces), streamed=True)
    assert error.kind == kind, error


async def test_a_server_that_is_not_there_is_unavailable(keys: None, litellm_loaded: None) -> None:
    request = ModelRequest(
        provider="groq",
        model="m",
        messages=[{"role": "user", "content": "x"}],
        provider_base_url="http://127.0.0.1:9/v1",
    )
    with pytest.raises(ModelError) as caught:
        await generate(request)
    assert caught.value.kind == Kind.UNAVAILABLE


async def test_silence_is_a_timeout(record: Recorder) -> None:
    import threading

    release = threading.Event()
    record.answer = lambda _: release.wait(10) and Answer(chat_answer("x"))  # type: ignore[assignment, return-value]
    request = ModelRequest(
        provider="groq",
        model="m",
        messages=[{"role": "user", "content": "x"}],
        provider_base_url=f"{record.url}/v1",
        timeout_seconds=0.1,
    )
    with pytest.raises(ModelError) as caught:
        await generate(request)
    release.set()
    assert caught.value.kind == Kind.TIMEOUT


async def test_a_key_that_is_not_set_is_an_authentication_error(
    litellm_loaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    with pytest.raises(ModelError, match="Set GROQ_API_KEY") as caught:
        await generate(ModelRequest(provider="groq", model="m", messages=[]))
    assert caught.value.kind == Kind.AUTHENTICATION
