"""Tokens of calls whose provider did not count them: four characters are about one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import ceil
from typing import Any

from polos.models.request import Item, ModelRequest
from polos.types import Usage

_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_IMAGE = 1000
_TEXT_FIELDS = ("text", "thinking", "reasoning_content", "arguments", "output", "refusal")


def completed_usage(said: Usage, request: ModelRequest, *, written: int) -> Usage:
    """Return `said` with estimates where it says nothing.

    Args:
        said: What the provider counted before the call ended.
        request: The call.
        written: Characters of output that came.
    """
    input_tokens = said.input_tokens or input_estimate(request)
    output_tokens = max(said.output_tokens, ceil(written / _CHARACTERS_PER_TOKEN))
    return said.model_copy(
        update={
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
        }
    )


def input_estimate(request: ModelRequest) -> int:
    """Return about how many tokens the input of `request` has."""
    extras = [value for value in (request.tools, request.output_schema) if value]
    texts = len(request.system_prompt or "") + sum(len(json.dumps(value)) for value in extras)
    images = sum(_images(item.get("content")) for item in request.messages)
    characters = texts + written_in(request.messages)
    return ceil(characters / _CHARACTERS_PER_TOKEN) + images * _TOKENS_PER_IMAGE


def written_in(items: Iterable[Item]) -> int:
    """Return how many characters of text, reasoning, calls and outputs `items` hold; images are left out."""
    return sum(_characters(item) for item in items)


def _characters(value: Any) -> int:
    match value:
        case str():
            return len(value)
        case list():
            return sum(_characters(each) for each in value)
        case dict():
            inner = [value[name] for name in ("content", "thinking_blocks", "summary") if name in value]
            texts = [value[name] for name in _TEXT_FIELDS if name in value]
            return sum(_characters(each) for each in (*inner, *texts))
        case _:
            return 0


def _images(content: Any) -> int:
    blocks = content if isinstance(content, list) else ()
    return sum("image" in str(block.get("type")) for block in blocks if isinstance(block, dict))
