"""What a model call can raise, as a `ModelError` that says what to do and whether to try again.

What the provider itself said decides: LiteLLM's exceptions lose the status, the Retry-After header
and the body on the way, but keep the HTTP error they were made from as their cause.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from polos.errors import ModelError, ModelErrorKind
from polos.models.kinds import advice, kind_of, may_pass
from polos.models.pauses import pause_in_answer, pause_in_headers, pause_in_text
from polos.models.providers import PROVIDERS
from polos.models.request import ModelAnswer
from polos.models.streams.assembler import StreamError

_TEXT_LIMIT = 600

# What providers call errors in a stream, which have no status.
_STATUS_OF_CODE: Mapping[Any, int] = {
    "api_error": 500,
    "authentication_error": 401,
    "billing_error": 402,
    "content_filter": 400,
    "content_policy_violation": 400,
    "context_length_exceeded": 400,
    "insufficient_quota": 429,
    "invalid_api_key": 401,
    "invalid_prompt": 400,
    "invalid_request_error": 400,
    "model_not_found": 404,
    "not_found_error": 404,
    "overloaded_error": 529,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "request_too_large": 413,
    "server_error": 500,
    "timeout_error": 504,
}

# What LiteLLM's own exceptions mean when no HTTP answer is behind them: a status, or retry / give up.
STATUS_OF_EXCEPTION: Mapping[str, int | bool] = {
    "AuthenticationError": 401,
    "BadRequestError": 400,
    "BlockedPiiEntityError": False,
    "BudgetExceededError": False,
    "ContentPolicyViolationError": 400,
    "ContextWindowExceededError": 400,
    "GuardrailRaisedException": False,
    "ImageFetchError": 400,
    "InvalidRequestError": 400,
    "JSONSchemaValidationError": True,
    "LiteLLMUnknownProvider": 400,
    "ModelNotMappedError": False,
    "ModifyResponseException": False,
    "NotFoundError": 404,
    "PaymentRequiredError": 402,
    "PermissionDeniedError": 403,
    "RejectedRequestError": 400,
    "SensitiveDataRouteException": False,
    "UnprocessableEntityError": 422,
    "UnsupportedParamsError": 400,
    "VectorStoreSearchError": 400,
    "APIConnectionError": True,
    "APIError": True,
    "APIResponseValidationError": True,
    "BadGatewayError": 502,
    "InternalServerError": 500,
    "MidStreamFallbackError": 503,
    "MockException": True,
    "OpenAIError": True,
    "RateLimitError": 429,
    "ServiceUnavailableError": 503,
    "Timeout": 408,
}

# And which code of a provider those stand for that have one.
_CODE_OF_EXCEPTION: Mapping[str, str] = {
    "ContentPolicyViolationError": "content_filter",
    "ContextWindowExceededError": "context_length_exceeded",
}


@dataclass(frozen=True)
class Call:
    """What the messages of errors need to know about a call; `secrets` never appear in them."""

    provider: str
    model: str
    base_url: str | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
    timeout_seconds: float | None = None
    answered: bool = False
    """Whether a successful HTTP answer had arrived when the exception was raised."""
    handled: BaseException | None = None
    """What the caller was handling when it made the call: it is in the context of all that is raised."""


def model_error(error: BaseException, call: Call) -> ModelError:
    """Return what `error`, raised by LiteLLM or by HTTP, means for the run."""
    causes = list(_causes(error, call.handled))
    if (broken := next((cause for cause in causes if isinstance(cause, StreamError)), None)) is not None:
        return _from_stream(broken, call)
    if (response := _response(causes)) is not None:
        return _from_response(response, call)
    if any(isinstance(cause, TimeoutError | httpx.TimeoutException) for cause in causes):
        return timeout_error(call)
    if any(isinstance(cause, httpx.UnsupportedProtocol | httpx.InvalidURL) for cause in causes):
        return _error(f"{call.base_url!r} is not a URL; check the base URL", call, ModelErrorKind.BAD_REQUEST)
    if (
        lost := next((cause for cause in causes if isinstance(cause, httpx.TransportError)), None)
    ) is not None:
        reason = str(lost) or type(lost).__name__
        text = f"the connection failed ({reason}); check the base URL"
        return _error(text, call, ModelErrorKind.UNAVAILABLE, retryable=True)
    if call.answered:
        text = f"the answer cannot be read: {_describe(causes)}"
        return _error(text, call, ModelErrorKind.BAD_ANSWER, retryable=True)
    return _from_exception(error, causes, call)


def timeout_error(call: Call) -> ModelError:
    """Return the error of a call that took too long."""
    seconds = "" if call.timeout_seconds is None else f" within {call.timeout_seconds:g} seconds"
    return _error(f"no answer{seconds}", call, ModelErrorKind.TIMEOUT, retryable=True)


def unusable_answer_error(call: Call, answer: ModelAnswer) -> ModelError | None:
    """Return the error of an answer that is none: refused, filtered or empty; None if it can be used."""
    if answer.refusal is not None:
        return _declined(f"the model refused to answer: {answer.refusal}", call, ModelErrorKind.REFUSAL)
    if answer.stop_reason == "content_filter":
        return _declined("the answer was cut by a content filter", call, ModelErrorKind.CONTENT_FILTER)
    if answer.content or answer.tool_calls:
        return None
    # Room for the answer is what was missing: the same request would miss it again.
    is_cut = answer.stop_reason == "length"
    hint = "; raise max_output_tokens" if is_cut else ""
    text = f"empty answer: neither text nor tool calls (stop reason {answer.stop_reason!r}){hint}"
    return _error(text, call, ModelErrorKind.EMPTY, retryable=not is_cut)


def reported_error(error: BaseException, call: Call) -> ModelError:
    """Return what an error of another library than LiteLLM means, by its status or the network error."""
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    if isinstance(status, int):
        code = getattr(error, "code", None)
        headers = getattr(response, "headers", None)
        return _declined(
            f"HTTP {status}: {error}",
            call,
            kind_of(status, code if isinstance(code, str) else "", str(error)),
            status_code=status,
            retry_after_seconds=pause_in_headers(headers) if isinstance(headers, Mapping) else None,
        )
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        return _error(f"the connection failed ({error})", call, ModelErrorKind.UNAVAILABLE, retryable=True)
    return model_error(error, call)


def broken_answer_error(call: Call, problem: str) -> ModelError:
    """Return the error of an answer that is not what it has to be, and will not be the next time."""
    return _error(problem, call, ModelErrorKind.BAD_ANSWER)


def cut_answer_error(call: Call, problem: str) -> ModelError:
    """Return the error of an answer that broke off."""
    return _error(problem, call, ModelErrorKind.UNAVAILABLE, retryable=True)


def failed_answer_error(call: Call, error: Mapping[str, Any]) -> ModelError:
    """Return the error an OpenAI Responses answer reports in its body."""
    code, text = str(error.get("code") or ""), str(error.get("message") or "")
    kind = kind_of(None if code in ("", "vector_store_timeout") else 400, code, text)
    return _declined(f"the answer failed: {text or code}", call, kind)


def error_code(response: httpx.Response) -> str:
    """Return the provider's own code for an error answer, such as ``model_not_found``, or an empty text."""
    return _said(response)[1]


def error_response(error: BaseException, call: Call) -> httpx.Response | None:
    """Return the HTTP answer behind `error`, if there was one."""
    return _response(list(_causes(error, call.handled)))


def _causes(error: BaseException | None, handled: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and error is not handled and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _response(causes: list[BaseException]) -> httpx.Response | None:
    """Return the provider's error answer; the innermost exception holds the real one."""
    for cause in reversed(causes):
        if isinstance(cause, httpx.HTTPStatusError):
            return cause.response
    return None


def _from_response(response: httpx.Response, call: Call) -> ModelError:
    text, code = _said(response)
    kind = kind_of(response.status_code, code, f"{text} {_details(response)}")
    return _declined(
        f"HTTP {response.status_code}: {text}",
        call,
        kind,
        status_code=response.status_code,
        retry_after_seconds=pause_in_answer(response),
    )


def _from_stream(broken: StreamError, call: Call) -> ModelError:
    """Map what ended a stream: it broke, or the provider said why in its last event."""
    if broken.said is None:
        return _error(str(broken), call, ModelErrorKind.UNAVAILABLE, retryable=True)
    codes = [broken.said.get(name) for name in ("code", "type", "status")]
    status = next((status for code in codes if (status := _status_of(code)) is not None), None)
    code = str(broken.said.get("code") or broken.said.get("type") or "")
    text = str(broken.said.get("message") or code or dict(broken.said))
    return _declined(
        f"the provider broke off its stream: {text}",
        call,
        kind_of(status, code, text),
        status_code=status,
        retry_after_seconds=pause_in_text(json.dumps(broken.said, default=str)),
    )


def _status_of(code: Any) -> int | None:
    """Return the HTTP status an error would have had that came in a stream instead."""
    if isinstance(code, int) or (isinstance(code, str) and code.isdecimal()):
        return int(code) if 400 <= int(code) < 600 else None
    return _STATUS_OF_CODE.get(code)


def _from_exception(error: BaseException, causes: list[BaseException], call: Call) -> ModelError:
    """Map an exception without an HTTP answer by the LiteLLM class it is."""
    names = [name.__name__ for name in type(error).__mro__]
    meaning = next((STATUS_OF_EXCEPTION[name] for name in names if name in STATUS_OF_EXCEPTION), False)
    if type(error).__name__ == "APIConnectionError" and not _is_network(causes):
        meaning = False  # LiteLLM's wrapping of any bug or bad input met while it built the request
    text = _describe(causes)
    if isinstance(meaning, bool):
        kind = ModelErrorKind.UNAVAILABLE if meaning else ModelErrorKind.BAD_REQUEST
        return _error(text, call, kind, retryable=meaning)
    code = next((code for name, code in _CODE_OF_EXCEPTION.items() if name in names), "")
    return _declined(text, call, kind_of(meaning, code, text), status_code=meaning)


def _is_network(causes: list[BaseException]) -> bool:
    return len(causes) == 1 or any(isinstance(cause, OSError) for cause in causes)


def _describe(causes: list[BaseException]) -> str:
    root = next(cause for cause in reversed(causes) if not isinstance(cause, StopIteration))
    return " ".join(f"{type(root).__name__}: {root}".split()).strip(": ")


def _declined(
    what: str,
    call: Call,
    kind: ModelErrorKind,
    *,
    status_code: int | None = None,
    retry_after_seconds: float | None = None,
) -> ModelError:
    """Return the error of a request the provider turned down, with advice where waiting does not help."""
    if may_pass(kind):
        return _error(
            what,
            call,
            kind,
            status_code=status_code,
            retryable=True,
            retry_after_seconds=retry_after_seconds,
        )
    keys = PROVIDERS[call.provider].key_variables if call.provider in PROVIDERS else ()
    todo = advice(kind, keys=keys, base_url=call.base_url, provider=call.provider)
    what = what.rstrip(".")[: _TEXT_LIMIT - len(todo)]
    return _error(f"{what}. {todo}", call, kind, status_code=status_code)


def _error(
    what: str,
    call: Call,
    kind: ModelErrorKind,
    *,
    status_code: int | None = None,
    retryable: bool = False,
    retry_after_seconds: float | None = None,
) -> ModelError:
    return ModelError(
        f"{call.provider} model {call.model!r}: {_without_secrets(what, call.secrets)[:_TEXT_LIMIT]}",
        provider=call.provider,
        model=call.model,
        kind=kind,
        status_code=status_code,
        retryable=retryable,
        retry_after_seconds=retry_after_seconds,
    )


def _without_secrets(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    # Providers echo parts of a wrong key.
    return re.sub(r"\b(sk|gsk|xai|key|pk)-[\w*-]{6,}|\bAIza[\w-]{10,}", "***", text)


def _said(response: httpx.Response) -> tuple[str, str]:
    """Return the message and the code of an error answer."""
    try:
        body = json.loads(response.text)
    except (ValueError, RecursionError, httpx.StreamError):  # not JSON, or the body was never read
        return _plain_text(response), ""
    body = body[0] if isinstance(body, list) and body else body  # Gemini wraps some errors in a list
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return str(error), ""
    return str(error.get("message") or error), str(error.get("code") or error.get("type") or "")


def _details(response: httpx.Response) -> str:
    """Return the reasons some providers give beside the message, as text to search in."""
    try:
        body = json.loads(response.text)
    except (ValueError, RecursionError, httpx.StreamError):
        return ""
    body = body[0] if isinstance(body, list) and body else body
    error = body.get("error") if isinstance(body, dict) else None
    found = (
        [error.get(name) for name in ("details", "innererror", "status")] if isinstance(error, dict) else []
    )
    return json.dumps([each for each in found if each])


def _plain_text(response: httpx.Response) -> str:
    is_text = response.is_closed and "html" not in response.headers.get("content-type", "")
    return (response.text.strip() if is_text else "") or response.reason_phrase
