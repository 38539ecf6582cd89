"""How many tokens a conversation has, about: a token for four characters of its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from polos.memory.blobs import without_blobs

CHARACTERS_PER_TOKEN = 4
BLOB_TOKENS = 1_600  # of an image or a file: providers count its size in pixels or pages, not in characters


def estimate_tokens(text: str | None) -> int:
    """Return about how many tokens a text has, rounded up."""
    return -(-len(text or "") // CHARACTERS_PER_TOKEN)


def estimate_message_tokens(message: dict[str, Any]) -> int:
    """Return about how many tokens an item of a conversation has: a message, a tool call or its output."""
    plain, blobs = without_blobs(message, longest=0, note=lambda blob: "")
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), default=str)
    return estimate_tokens(text) + blobs * BLOB_TOKENS


def estimate_messages_tokens(messages: Iterable[dict[str, Any]]) -> int:
    """Return about how many tokens the items of a conversation have together."""
    return sum(map(estimate_message_tokens, messages))
