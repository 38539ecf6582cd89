"""How long a provider wants no calls, as its error answers say in their headers or their text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

# What is left of an allowance, and when it is whole again.
_ALLOWANCES = [
    (f"{prefix}-remaining-{what}", f"{prefix}-reset-{what}")
    for prefix in ("x-ratelimit", "x-ms-ratelimit")
    for what in ("requests", "tokens")
] + [
    (f"anthropic-ratelimit-{what}-remaining", f"anthropic-ratelimit-{what}-reset")
    for what in ("requests", "tokens", "input-tokens", "output-tokens")
]
_SPAN = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


def pause_in_answer(response: httpx.Response) -> float | None:
    """Return how many seconds an error answer asks to wait, None where it says nothing."""
    asked = pause_in_headers(response.headers)
    if asked is not None or response.headers.get("retry-after"):
        return asked
    return pause_in_text(response.text) if response.is_closed else None


def pause_in_headers(headers: Mapping[str, str]) -> float | None:
    """Return what Retry-After says, else when the allowance that is used up is whole again."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    if (seconds := _number(headers.get("retry-after"))) is not None:
        return seconds
    if when := headers.get("retry-after"):
        return _seconds_until_http_date(when)
    resets = [
        seconds
        for remaining, reset in _ALLOWANCES
        if _number(headers.get(remaining)) == 0 and (seconds := _span(headers.get(reset))) is not None
    ]
    return max(resets, default=None)


def pause_in_text(said: str) -> float | None:
    """Return the pause Gemini asks for in the body of an error."""
    delay = re.search(r'"retryDelay":\s*"(\d+(?:\.\d+)?)s"', said)
    return float(delay[1]) if delay else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else None
    except ValueError:
        return None
    return None if number is None else max(0.0, number)


def _span(text: str | None) -> float | None:
    """Return a time such as ``6m0s``, ``120ms``, ``12`` or a date, in seconds from now."""
    if not text or (seconds := _number(text)) is not None:
        return seconds if text else None
    if (found := _SPAN.fullmatch(text)) is not None:
        hours, minutes, seconds_, milliseconds = (float(part or 0) for part in found.groups())
        return hours * 3600 + minutes * 60 + seconds_ + milliseconds / 1000
    try:
        return _seconds_until(datetime.fromisoformat(text))
    except ValueError:
        return None


def _seconds_until_http_date(text: str) -> float | None:
    try:
        return _seconds_until(parsedate_to_datetime(text))
    except ValueError:
        return None


def _seconds_until(when: datetime) -> float:
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
