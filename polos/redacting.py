"""Texts without the secrets that can be known by their form: what code raises may quote a URL or a header."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

HIDDEN = "***"
_SHORTEST_SECRET = 6  # characters: shorter values are words of any text
# Up to the last @ of the URL: a password that was not escaped may hold some.
_URL_PASSWORD = re.compile(r"""([A-Za-z][\w+.-]*://[^\s:/@"'<>]*:)(?!\d{1,5}/)[^\s"'<>]+@""")
_QUERY = re.compile(
    r"""([?&](?:[\w-]*(?:token|password|secret|api_?key)|key)=)[^\s&"'<>\\]+""", re.IGNORECASE
)
_HEADER = re.compile(r"\b(bearer|basic)(\s+)[\w.~+/-]{8,}=*", re.IGNORECASE)
_API_KEY = re.compile(r"\bsk_[A-Za-z0-9]{32}\b")


def redacted(text: str) -> str:
    """Return `text` with passwords of URLs, keys in queries, credentials in headers and API keys hidden."""
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1{HIDDEN}@", text)
    if "=" in text:
        text = _QUERY.sub(rf"\1{HIDDEN}", text)
    return _API_KEY.sub(f"sk_{HIDDEN}", _HEADER.sub(rf"\1\2{HIDDEN}", text))


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with each of `secrets` replaced by ``***``, the longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, HIDDEN)
    return text


_sent: frozenset[str] = frozenset()


def keep_from_libraries(secrets: Iterable[str]) -> None:
    """Have `hide_sent` hide these values in this process: libraries log whom they ask and what they get."""
    global _sent
    _sent |= {form for secret in secrets for form in (secret, quote(secret), quote(secret, safe=""))}


def hide_sent(text: str) -> str:
    """Return `text` without what this process sends to servers as secrets."""
    return hide(text, _sent)
