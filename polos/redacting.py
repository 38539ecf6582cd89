"""Texts without the secrets that can be known by their form: what code raises may quote a URL or a header."""

from __future__ import annotations

import re

HIDDEN = "***"
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
