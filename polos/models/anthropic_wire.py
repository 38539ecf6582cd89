"""Anthropic's messages API, written from chat messages and read back as a chat completion."""

from __future__ import annotations

import json
import re

from polos.models.request import Item

VERSION = "2023-06-01"
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")
_DATA_URL = re.compile(r"^data:(?P<kind>[^;,]+)(?:;[^,]*)?,(?P<data>.*)$", re.DOTALL)
_STOP_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_EMPTY = "(empty message)"  # Anthropic refuses texts without a character
# Anthropic refuses calls in a conversation that offers no tools; LiteLLM helps itself the same way.
_NO_TOOLS: list[Item] = [
    {
        "type": "custom",
        "name": "dummy_tool",
        "description": "This is a dummy tool call",
        "input_schema": {"type": "object", "properties": {}},
    }
]


def asked(messages: list[Item], tools: list[Item]) -> Item:
    """Return the fields of a request that hold the conversation and the tools.

    Args:
        messages: Chat messages; those of the system come first.
        tools: Function tools in the form of chat completions.
    """
    system = [block for message in messages if message["role"] == "system" for block in _texts(message)]
    turns = _turns([message for message in messages if message["role"] != "system"])
    fields: Item = {"messages": turns}
    if system:
        fields["system"] = system
    offered = [_tool(tool["function"]) for tool in tools] or (_NO_TOOLS if _has_calls(messages) else [])
    return {**fields, "tools": offered} if offered else fields


def _has_calls(messages: list[Item]) -> bool:
    return any(message.get("tool_calls") or message["role"] == "tool" for message in messages)


def as_chat(answer: Item) -> Item:
    """Return an answer as a chat completion: what `from_chat` reads."""
    blocks = [block for block in answer.get("content") or () if isinstance(block, dict)]
    thoughts = [block for block in blocks if block.get("type") in ("thinking", "redacted_thinking")]
    calls = [_call(block) for block in blocks if block.get("type") == "tool_use"]
    message: Item = {"role": "assistant", "content": _said(blocks) or None}
    if calls:
        message["tool_calls"] = calls
    if thoughts:
        message["thinking_blocks"] = thoughts
    stop_reason = answer.get("stop_reason")
    if why := (answer.get("stop_details") or {}).get("explanation"):
        message["refusal"] = why
    if fields := {**_citations(blocks), **_endings(answer)}:
        message["provider_specific_fields"] = fields
    finish = _STOP_REASONS.get(stop_reason or "", "stop" if stop_reason else None)
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "model": answer.get("model"),
        "usage": _usage(answer.get("usage") or {}),
        **({"service_tier": tier} if (tier := (answer.get("usage") or {}).get("service_tier")) else {}),
    }


# -- asking


def _turns(messages: list[Item]) -> list[Item]:
    """Return messages of user and assistant in turn: what follows the other in a row is one message."""
    turns: list[Item] = []
    for message in messages:
        role = "assistant" if message["role"] == "assistant" else "user"
        blocks = _assistant(message) if role == "assistant" else _user(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return turns


def _user(message: Item) -> list[Item]:
    if message["role"] != "tool":
        return _texts(message) or [{"type": "text", "text": _EMPTY}]
    content = message["content"]
    result = content if isinstance(content, str) else _texts(message)
    id = _NOT_IN_IDS.sub("_", message["tool_call_id"])
    return [{"type": "tool_result", "tool_use_id": id, "content": result}]


def _assistant(message: Item) -> list[Item]:
    blocks = list(message.get("thinking_blocks") or ())
    blocks += [block for block in _texts(message) if block.get("text") != ""]
    return blocks + [_tool_use(call) for call in message.get("tool_calls") or ()]


def _tool_use(call: Item) -> Item:
    function = call["function"]
    id = _NOT_IN_IDS.sub("_", call["id"])
    return {
        "type": "tool_use",
        "id": id,
        "name": function["name"],
        "input": json.loads(function["arguments"]),
    }


def _texts(message: Item) -> list[Item]:
    content = message.get("content")
    if isinstance(content, list):
        return [_block(block) for block in content]
    return [{"type": "text", "text": content}] if content else []


def _block(block: Item) -> Item:
    if block.get("type") != "image_url":
        return block
    url = block["image_url"]["url"] if isinstance(block["image_url"], dict) else block["image_url"]
    if (found := _DATA_URL.match(url)) is None:
        return {"type": "image", "source": {"type": "url", "url": url}}
    source = {"type": "base64", "media_type": found["kind"], "data": found["data"]}
    return {"type": "image", "source": source}


def _tool(function: Item) -> Item:
    schema = {
        name: value for name, value in (function.get("parameters") or _NO_INPUT).items() if name != "title"
    }
    told = {"description": function["description"]} if "description" in function else {}
    return {"type": "custom", "name": function["name"], "input_schema": schema, **told}


_NO_INPUT: Item = {"type": "object", "properties": {}}


# -- reading


def _said(blocks: list[Item]) -> str:
    return "".join(block.get("text") or "" for block in blocks if block.get("type") == "text")


def _call(block: Item) -> Item:
    arguments = json.dumps(block.get("input") or {})
    function = {"name": block.get("name"), "arguments": arguments}
    return {"id": block.get("id"), "type": "function", "function": function}


def _citations(blocks: list[Item]) -> Item:
    found = [block["citations"] for block in blocks if block.get("citations")]
    return {"citations": found} if found else {}


def _endings(answer: Item) -> Item:
    reason = answer.get("stop_reason")
    return {"stop_reason": reason} if reason in ("refusal", "pause_turn") else {}


def _usage(usage: Item) -> Item:
    read, made = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    prompt = (usage.get("input_tokens") or 0) + (read or 0) + (made or 0)
    completion = usage.get("output_tokens") or 0
    return {
        **usage,
        "cache_read_input_tokens": read or 0,
        "cache_creation_input_tokens": made or 0,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
