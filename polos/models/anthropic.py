"""What Anthropic wants beyond LiteLLM's translation: cache breakpoints, failed tools, a token limit."""

from __future__ import annotations

from typing import Any

from polos.models.request import Item

DEFAULT_MAX_TOKENS = 16_384
UNKNOWN_MODEL_MAX_TOKENS = 4096
_CACHE_HERE = {"type": "ephemeral"}
_UNCACHEABLE = ("thinking", "redacted_thinking")


def default_max_tokens(known_limit: int | None, thinking: Any) -> int:
    """Return the limit Anthropic insists on, for a request that names none.

    Args:
        known_limit: The most the model can answer with, None when unknown.
        thinking: The ``thinking`` option; its budget counts towards the limit and must be below it.
    """
    limit = min(known_limit or UNKNOWN_MODEL_MAX_TOKENS, DEFAULT_MAX_TOKENS)
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    return limit + budget if budget else limit


def mark_failed_tools(body: Item, failed_call_ids: set[str]) -> None:
    """Set ``is_error`` on the results of failed tools, in place; chat messages have no word for it."""
    for message in body["messages"]:
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block.get("type") == "tool_result" and block.get("tool_use_id") in failed_call_ids:
                block["is_error"] = True


def mark_for_caching(body: Item) -> None:
    """Put cache breakpoints on the system prompt, the last tool and the last message, in place."""
    if system := body.get("system"):
        body["system"] = _marked(system)
    if tools := body.get("tools"):
        body["tools"] = _marked(tools)
    if messages := body.get("messages"):
        messages[-1] = {**messages[-1], "content": _marked(messages[-1]["content"])}


def _marked(blocks: str | list[Item]) -> str | list[Item]:
    """Return `blocks` with a breakpoint on the last one that can carry it."""
    if isinstance(blocks, str):
        blocks = [{"type": "text", "text": blocks}]
    blocks = list(blocks)
    for index in reversed(range(len(blocks))):
        if blocks[index].get("type") not in _UNCACHEABLE and blocks[index].get("text") != "":
            blocks[index] = {**blocks[index], "cache_control": _CACHE_HERE}
            break
    return blocks
