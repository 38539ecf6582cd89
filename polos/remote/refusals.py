"""Answers of the server that are errors, as the errors a direct client raises."""

from __future__ import annotations

from typing import Any

import httpx

from polos.errors import (
    AccessDeniedError,
    AnswerError,
    ConfigurationError,
    IdempotencyError,
    PolosError,
    ServerUnavailableError,
    ValueTooLargeError,
)

REPEATED = frozenset({429, 502, 503, 504})  # nothing was accepted, or nobody can tell
LONGEST_TEXT = 300


class Trouble(Exception):  # noqa: N818 - never leaves this room
    """An attempt that failed.

    Attributes:
        error: What the caller gets if no other attempt is made.
        was_refused: Nothing of it was done, so that it may be repeated whatever it is.
        passes: Another attempt may succeed.
        retry_after_seconds: What the server asked to wait.
    """

    def __init__(
        self,
        error: Exception,
        *,
        was_refused: bool = True,
        passes: bool = False,
        retry_after_seconds: float = 0.0,
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.was_refused = was_refused
        self.passes = passes
        self.retry_after_seconds = retry_after_seconds


def unreachable(error: httpx.TransportError, url: str) -> Trouble:
    """Return what it means that no answer came."""
    text = str(error) or type(error).__name__
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return Trouble(ConfigurationError(f"The server at {url} cannot be asked: {text}"))
    never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    advice = (
        "Start it with 'polos server', or correct POLOS_API_URL. Without a server, unset POLOS_API_URL or "
        "set POLOS_TRANSPORT=direct to go straight to database and broker"
        if never_sent
        else "What was asked may have been done"
    )
    return Trouble(
        ServerUnavailableError(f"The server at {url} does not answer ({text}). {advice}."),
        was_refused=never_sent,
        passes=True,
    )


def refusal(response: httpx.Response, url: str) -> Trouble:
    """Return what an answer other than 2xx means."""
    status = response.status_code
    message = _message(response)
    if status in REPEATED:
        return Trouble(
            ServerUnavailableError(f"The server at {url} cannot answer now ({status}): {message}"),
            was_refused=status in {429, 503},
            passes=True,
            retry_after_seconds=_retry_after(response),
        )
    if 300 <= status < 400:
        place = response.headers.get("location", "elsewhere")
        return Trouble(ConfigurationError(f"api_url={url!r} points to {place!r}: use that URL"))
    return Trouble(_final(status, message, url))


def _final(status: int, message: str, url: str) -> PolosError | ValueError:
    match status:
        case 401:
            return AccessDeniedError(
                f"The server at {url} does not accept the API key: {message}. Check POLOS_API_KEY or api_key="
            )
        case 403:
            return AccessDeniedError(
                f"The server at {url} refuses this: {message}. Check that project_id (POLOS_PROJECT_ID) is "
                "the project of the API key"
            )
        case 409:
            return IdempotencyError(message)
        case 413:
            return ValueTooLargeError(message)
        case 422:
            return AnswerError(message)
        case status if status < 500:
            return ValueError(message)
        case _:
            return ServerUnavailableError(f"The server at {url} failed ({status}): {message}")


def is_missing(response: httpx.Response, url: str) -> bool:
    """Return whether the answer is that there is no such thing.

    Raises:
        ConfigurationError: Something else than a `polos server` answers there.
    """
    if response.status_code != 404:
        return False
    data_of(response, url, key="error_type")
    return True


def data_of(response: httpx.Response, url: str, *, key: str | None = None) -> Any:
    """Return the JSON data of an answer, which has `key` if that is given.

    Raises:
        ConfigurationError: It has none: whatever answers is not a `polos server`.
    """
    try:
        data = response.json()
        if key is None or key in data:
            return data
    except (ValueError, TypeError):
        pass  # said below
    raise ConfigurationError(
        f"What answers at {url} is not a polos server ({response.status_code}: {_text(response)!r}); "
        "correct api_url or POLOS_API_URL, which have no path such as /api/v1"
    )


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, TypeError, KeyError):
        return _text(response) or response.reason_phrase


def _text(response: httpx.Response) -> str:
    return " ".join(response.text[:LONGEST_TEXT].split())


def _retry_after(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", "0")))
    except ValueError:  # a date, of which our server makes no use
        return 0.0
