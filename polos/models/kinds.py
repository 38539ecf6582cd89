"""Why a provider turned a request down: its status, its code and its words, as one of a few kinds.

Every provider has its own words for a conversation that is too long, a wrong key or an empty account, and
several send them under the status of a bad request. The texts here are theirs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from polos.errors import ModelErrorKind as Kind

_KIND_OF_STATUS: Mapping[int, Kind] = {
    401: Kind.AUTHENTICATION,
    402: Kind.QUOTA,
    403: Kind.AUTHENTICATION,
    404: Kind.UNKNOWN_MODEL,
    408: Kind.TIMEOUT,
    409: Kind.UNAVAILABLE,
    429: Kind.RATE_LIMIT,
    504: Kind.TIMEOUT,
}
_KIND_OF_CODE: Mapping[str, Kind] = {
    "authentication_error": Kind.AUTHENTICATION,
    "billing_error": Kind.QUOTA,
    "billing_hard_limit_reached": Kind.QUOTA,
    "billing_not_active": Kind.QUOTA,
    "content_filter": Kind.CONTENT_FILTER,
    "content_policy_violation": Kind.CONTENT_FILTER,
    "context_length_exceeded": Kind.CONTEXT_OVERFLOW,
    "deploymentnotfound": Kind.UNKNOWN_MODEL,
    "insufficient_quota": Kind.QUOTA,
    "invalid_api_key": Kind.AUTHENTICATION,
    "invalid_prompt": Kind.CONTENT_FILTER,
    "model_not_available": Kind.UNKNOWN_MODEL,
    "model_not_found": Kind.UNKNOWN_MODEL,
    "overloaded_error": Kind.UNAVAILABLE,
    "permission_error": Kind.AUTHENTICATION,
    "rate_limit_error": Kind.RATE_LIMIT,
    "rate_limit_exceeded": Kind.RATE_LIMIT,
    "request_too_large": Kind.CONTEXT_OVERFLOW,
    "responsibleaipolicyviolation": Kind.CONTENT_FILTER,
    "server_error": Kind.UNAVAILABLE,
    "string_above_max_length": Kind.BAD_REQUEST,
}


def _any_of(*texts: str) -> re.Pattern[str]:
    return re.compile("|".join(texts), re.IGNORECASE)


_TOO_LONG = _any_of(
    r"context[ _-](?:length|window|size|limit)",
    r"maximum (?:context|prompt|input) length",
    r"prompt is too long",
    r"exceeds the maximum number of tokens",
    r"input token count",
    r"`inputs` tokens \+ `max_new_tokens`",
    r"input (?:is )?too long",
    r"too many (?:input )?tokens",
    r"input tokens exceed",
    r"reduce the length of the messages",
    r"current length is \d+ while limit is",
    r"exceeded model token limit",
    r"maximum allowed number of input tokens",
)
# A request above the tokens per minute can never pass, whatever its status says.
_LARGER_THAN_THE_RATE = _any_of(
    r"request too large for .*tokens per (?:min|day)", r"reduce your message size"
)
_FILTERED = _any_of(
    r"content[ _](?:filter|policy|management policy)",
    r"safety system",
    r"flagged as potentially violating",
    r"blocked by .*(?:filter|policy|safety)",
    r"usage policies",
)
_WRONG_KEY = _any_of(
    r"api[ _]key not (?:valid|found)", r"(?:incorrect|invalid) api[ _]key", r"api_key_invalid"
)
_NO_MONEY = _any_of(
    r"credit balance is too low",
    r"insufficient (?:balance|credits?|funds)",
    r"exceeded your current quota, pl",
)
_NO_SUCH_MODEL = _any_of(
    r"model ['\"`]?[\w./:-]+['\"`]? (?:does not exist|not found|is not found|is not supported)",
    r"(?:unknown|invalid|unsupported) model\b",
    r"not a valid model",
    r"invalid model id",
    r"LLM Provider NOT provided",
)
_OF_A_BAD_REQUEST = (400, 404, 412, 413, 422)


def kind_of(status: int | None, code: str = "", text: str = "") -> Kind:
    """Return what an error of a provider means.

    Args:
        status: HTTP status it came with, or would have.
        code: The provider's own code or type for it.
        text: Its message.
    """
    if _LARGER_THAN_THE_RATE.search(text):
        return Kind.CONTEXT_OVERFLOW
    if (kind := _KIND_OF_CODE.get(code.lower())) is not None:
        return kind
    if (status is None or status in _OF_A_BAD_REQUEST) and (kind := _kind_of_text(text)) is not None:
        return kind
    if status == 413:
        return Kind.CONTEXT_OVERFLOW
    otherwise = Kind.UNAVAILABLE if status is None or status >= 500 else Kind.BAD_REQUEST
    return _KIND_OF_STATUS.get(status or 0, otherwise)


def _kind_of_text(text: str) -> Kind | None:
    words = (
        (_WRONG_KEY, Kind.AUTHENTICATION),
        (_NO_MONEY, Kind.QUOTA),
        (_TOO_LONG, Kind.CONTEXT_OVERFLOW),
        (_FILTERED, Kind.CONTENT_FILTER),
        (_NO_SUCH_MODEL, Kind.UNKNOWN_MODEL),
    )
    return next((kind for pattern, kind in words if pattern.search(text)), None)


_PASSING = (Kind.RATE_LIMIT, Kind.UNAVAILABLE, Kind.TIMEOUT)


def may_pass(kind: Kind) -> bool:
    """Whether the same request may succeed later."""
    return kind in _PASSING


def advice(kind: Kind, *, keys: tuple[str, ...], base_url: str | None, provider: str) -> str:
    """Return what a person should do about an error that another attempt does not mend.

    Args:
        kind: What it is.
        keys: The variables that hold the provider's key.
        base_url: Where the request went, None for the public one.
        provider: Its name.
    """
    variable = " or ".join(keys) or "the credentials"
    where = f"base URL {base_url!r}" if base_url else "base URL"
    pull = ", or `ollama pull` the model" if provider == "ollama" else ""
    return {
        Kind.AUTHENTICATION: f"Check {variable}, and that it may use this model",
        Kind.QUOTA: "The account has no quota left: check its plan and billing",
        Kind.UNKNOWN_MODEL: f"Check the model name and the {where}{pull}",
        Kind.CONTEXT_OVERFLOW: "The conversation is too long for this model: shorten it, have it compacted "
        "(CompactionConfig), lower max_output_tokens, or use a model with a larger context",
        Kind.CONTENT_FILTER: "The provider's content filter stopped it: change the input or the system "
        "prompt, or use another provider",
        Kind.REFUSAL: "The model declined: change the input or the system prompt, or use another model",
    }.get(kind, "Check the model name, the options and the messages; the same request would be refused again")
