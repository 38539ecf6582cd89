"""Every exception a call can raise becomes a ModelError that knows whether to try again."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from polos.errors import ModelError
from polos.models.failures import STATUS_OF_EXCEPTION, Call, model_error

SECRET = "sk-verysecret123456"
CALL = Call(provider="openai", model="gpt-x", base_url="http://host/v1", secrets=(SECRET,), timeout_seconds=5)


def _http_error(
    status: int, body: Any = None, headers: dict[str, str] | None = None
) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", f"http://host/v1?key={SECRET}")
    content = {"content": body} if isinstance(body, bytes) else {"json": body or {"error": {"message": "oh"}}}
    response = httpx.Response(status, headers=headers, request=request, **content)
    return httpx.HTTPStatusError(f"{status} for {request.url}", request=request, response=response)


def _wrapped(inner: Exception) -> Exception:
    """As LiteLLM raises it: its own exception with the real one as context."""
    try:
        try:
            raise inner
        except Exception:
            raise RuntimeError("LiteLLM's words")  # noqa: B904 - LiteLLM raises like this
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    "status", [400, 401, 402, 403, 404, 413, 422, 408, 409, 429, 500, 502, 503, 504, 529]
)
def test_only_transient_statuses_are_retried(status: int) -> None:
    error = model_error(_wrapped(_http_error(status)), CALL)
    assert (error.status_code, error.retryable) == (status, status in (408, 409, 429) or status >= 500)
    assert (error.provider, error.model) == ("openai", "gpt-x")


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "model name and the base URL 'http://host/v1'")],
)
def test_the_message_says_what_to_check(status: int, advice: str) -> None:
    assert advice in str(model_error(_wrapped(_http_error(status)), CALL))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m2.5s"}, 62.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "7"}, 7.0),
        ({"x-ratelimit-remaining-tokens": "12", "x-ratelimit-reset-tokens": "7s"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "later"}, None),
        (
            {
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "2020-01-01T00:00:00Z",
            },
            0.0,
        ),
        ({}, None),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert model_error(_wrapped(_http_error(429, headers=headers)), CALL).retry_after_seconds == seconds


def test_retry_after_may_be_a_date() -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    seconds = model_error(_wrapped(_http_error(503, headers={"retry-after": when})), CALL).retry_after_seconds
    assert seconds == pytest.approx(60, abs=5)


def test_geminis_retry_delay_is_read_from_the_body() -> None:
    body = {"error": {"code": 429, "message": "slow", "details": [{"retryDelay": "13s"}]}}
    assert model_error(_wrapped(_http_error(429, body)), CALL).retry_after_seconds == 13


def test_an_exhausted_account_is_not_retried() -> None:
    body = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    error = model_error(_wrapped(_http_error(429, body)), CALL)
    assert not error.retryable
    assert "billing" in str(error)


def test_keys_never_appear_in_messages() -> None:
    body = {"error": {"message": f"Incorrect API key provided: {SECRET} or sk-proj-****************abcd."}}
    text = str(model_error(_wrapped(_http_error(401, body)), CALL))
    assert SECRET not in text
    assert "abcd" not in text


def test_an_html_page_is_not_quoted() -> None:
    error = _http_error(502, b"<html><body>x</body></html>", {"content-type": "text/html"})
    assert "html" not in str(model_error(_wrapped(error), CALL))


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadError("reset"),
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("cut"),
        httpx.ReadTimeout("slow"),
        httpx.ConnectTimeout("slow"),
        httpx.PoolTimeout("full"),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_network_trouble_is_retried(error: Exception) -> None:
    assert model_error(_wrapped(error), CALL).retryable


@pytest.mark.parametrize("error", [httpx.UnsupportedProtocol("no scheme"), httpx.InvalidURL("bad")])
def test_a_base_url_that_is_no_url_is_not_retried(error: Exception) -> None:
    found = model_error(_wrapped(error), CALL)
    assert not found.retryable
    assert "base URL" in str(found)


def test_garbage_after_a_successful_answer_is_retried() -> None:
    answered = Call(provider="openai", model="m", answered=True)
    assert model_error(_wrapped(KeyError("choices")), answered).retryable


def test_a_bug_before_the_request_is_not_retried() -> None:
    assert not model_error(_wrapped(KeyError("messages")), CALL).retryable


def _litellm_exceptions() -> list[type[Exception]]:
    import os

    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm.exceptions

    return [
        found
        for _, found in inspect.getmembers(litellm.exceptions, inspect.isclass)
        if issubclass(found, Exception) and found.__module__ == "litellm.exceptions"
    ]


def _made(kind: type[Exception]) -> Exception:
    """An instance, with something plausible for each argument its constructor insists on."""
    request = httpx.Request("POST", "http://host")
    plausible = {
        "response": httpx.Response(400, request=request),
        "request": request,
        "status_code": 418,
        "failures": (),
        "current_cost": 2.0,
        "max_budget": 1.0,
    }
    if kind.__init__ is Exception.__init__:
        return kind("x")
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return kind(**{name: plausible.get(name, "x") for name in needed})


def test_every_exception_of_litellm_is_mapped(litellm_loaded: None) -> None:
    """By itself, or as a special case of another."""
    assert not [found for found in _litellm_exceptions() if _mapped_as(found) is None]


def _mapped_as(kind: type[Exception]) -> str | None:
    ours = [base.__name__ for base in kind.__mro__ if base.__module__ == "litellm.exceptions"]
    return next((name for name in ours if name in STATUS_OF_EXCEPTION), None)


def test_each_litellm_exception_is_retried_or_not_by_its_meaning(litellm_loaded: None) -> None:
    transient = {
        "Timeout",
        "RateLimitError",
        "ServiceUnavailableError",
        "BadGatewayError",
        "InternalServerError",
    }
    transient |= {"APIConnectionError", "APIError", "APIResponseValidationError", "JSONSchemaValidationError"}
    transient |= {"MidStreamFallbackError", "MockException", "OpenAIError"}
    for found in _litellm_exceptions():
        error = model_error(_made(found), CALL)
        assert isinstance(error, ModelError)
        assert error.retryable == (_mapped_as(found) in transient), found.__name__
