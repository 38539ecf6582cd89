"""Whether the user has LiteLLM report calls: then it has to make them."""

from __future__ import annotations

import sys

_LISTS = (
    "callbacks",
    "success_callback",
    "failure_callback",
    "_async_success_callback",
    "_async_failure_callback",
)


def has_callbacks() -> bool:
    """Whether the program has given LiteLLM functions to call."""
    litellm = sys.modules.get("litellm")
    # "cache" is what LiteLLM's Gemini code adds for itself.
    return any(entry != "cache" for name in _LISTS for entry in getattr(litellm, name, ()))
