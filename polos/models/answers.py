"""A provider's answer, turned into a `ModelAnswer` with canonical items."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterable
from typing import Any

from polos.models.request import Item, ModelAnswer
from polos.models.streams.thoughts import without_thoughts
from polos.types import ToolCall, ToolCallFunction, Usage

SERVER_TOOL_MARK = "srvtoolu_"  # Anthropic's ids of calls it executes itself; their results name them
# Fields of messages that are read into the answer or into items of their own.
_ELSEWHERE = (
    "thinking_blocks",
    "reasoning_content",
    "reasoning",
    "refusal",
    "stop_reason",
    "stop_details",
)
_SIGNATURE_MARK = "__thought__"  # LiteLLM appends Gemini's thought signature, kilobytes long, to call ids


class CallIds:
    """Hands out call ids that are unique in a conversation; providers may leave them out or repeat them.

    Args:
        used: Those the conversation has.
        first: Those to hand out first, whatever the provider's are.
    """

    def __init__(self, used: Iterable[str], *, first: Iterable[str] = ()) -> None:
        self._used = set(used)
        self._first = deque(first)

    def accept(self, call_id: str | None) -> str:
        """Return `call_id` if it is new, else a fresh one."""
        if call_id and call_id.startswith(SERVER_TOOL_MARK):
            return call_id
        if self._first:
            call_id = self._first.popleft()
            self._used.add(call_id)
            return call_id
        call_id = (call_id or "").split(_SIGNATURE_MARK)[0]
        if not call_id or call_id in self._used:
            call_id = f"call_{uuid.uuid4().hex}"
        self._used.add(call_id)
        return call_id


def from_chat(answer: Any, call_ids: CallIds, *, thinks_aloud: bool = False) -> ModelAnswer:
    """Return LiteLLM's chat completion `answer`, a dict, as a `ModelAnswer`.

    Args:
        answer: What LiteLLM returned.
        call_ids: Makes the ids of its tool calls unique.
        thinks_aloud: Whether the text may begin with reasoning between tags, which is left out then.
    """
    choice = (answer.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    content = _chat_content(message, thinks_aloud=thinks_aloud)
    calls = [_chat_call(call, call_ids) for call in message.get("tool_calls") or ()]
    ours = [call for call in calls if not call["call_id"].startswith(SERVER_TOOL_MARK)]
    return ModelAnswer(
        content=content,
        tool_calls=[tool_call(call) for call in ours],
        usage=_chat_usage(answer.get("usage") or {}),
        raw_output=[*_chat_reasoning(message), *_chat_text(message, content), *calls],
        stop_reason=_chat_stop_reason(choice, message),
        refusal=_chat_refusal(message),
        model=answer.get("model"),
    )


def from_responses(answer: Any, call_ids: CallIds) -> ModelAnswer:
    """Return LiteLLM's OpenAI Responses `answer`, a dict, as a `ModelAnswer`."""
    items = [_responses_item(item, call_ids) for item in answer.get("output") or ()]
    texts = [item["content"] for item in items if item.get("role") == "assistant" and item["content"]]
    calls = [item for item in items if item.get("type") == "function_call"]
    return ModelAnswer(
        content="\n".join(texts) or None,
        tool_calls=[tool_call(call) for call in calls],
        usage=_responses_usage(answer.get("usage") or {}),
        raw_output=items,
        stop_reason=_responses_stop_reason(answer, has_calls=bool(calls)),
        refusal=_responses_refusal(answer.get("output") or ()),
        model=answer.get("model"),
    )


def tool_call(item: Item) -> ToolCall:
    """Return a canonical ``function_call`` item as the tool call users see."""
    function = ToolCallFunction(name=item["name"], arguments=item["arguments"])
    return ToolCall(id=item.get("id") or item["call_id"], call_id=item["call_id"], function=function)


def _chat_content(message: Item, *, thinks_aloud: bool) -> str | None:
    content = message.get("content")
    if thinks_aloud and isinstance(content, str):
        content = without_thoughts(content)
    return content or None


def _chat_call(call: Item, call_ids: CallIds) -> Item:
    function = call.get("function") or {}
    item: Item = {
        "type": "function_call",
        "call_id": call_ids.accept(call.get("id")),
        "name": function.get("name") or "",
        "arguments": function.get("arguments") or "{}",
    }
    if fields := call.get("provider_specific_fields"):
        item["provider_specific_fields"] = fields
    return item


def _chat_reasoning(message: Item) -> list[Item]:
    """Return the item of what was thought: signed blocks, or just the text."""
    if blocks := message.get("thinking_blocks"):
        return [{"type": "reasoning", "thinking_blocks": blocks}]
    text = message.get("reasoning_content") or message.get("reasoning")
    return [{"type": "reasoning", "reasoning_content": text}] if isinstance(text, str) and text else []


def _chat_text(message: Item, content: str | None) -> list[Item]:
    fields = {
        key: value
        for key, value in (message.get("provider_specific_fields") or {}).items()
        if value and key not in _ELSEWHERE
    }
    if not content and not fields:
        return []
    item: Item = {"role": "assistant", "content": content or ""}
    return [{**item, "provider_specific_fields": fields} if fields else item]


def _chat_stop_reason(choice: Item, message: Item) -> str | None:
    """Return why the answer ends; a pause of Anthropic's own tools is none of chat's words."""
    own = (message.get("provider_specific_fields") or {}).get("stop_reason")
    return own if own == "pause_turn" else choice.get("finish_reason")


def _chat_refusal(message: Item) -> str | None:
    """Return why the model declined: a field of OpenAI's, a stop reason of Anthropic's."""
    fields = message.get("provider_specific_fields") or {}
    said = message.get("refusal") or fields.get("refusal")
    return said or ("it gives no reason" if fields.get("stop_reason") == "refusal" else None)


def _chat_usage(usage: Item) -> Usage:
    details = usage.get("prompt_tokens_details") or {}
    return _usage(
        usage.get("prompt_tokens"),
        usage.get("completion_tokens"),
        usage.get("total_tokens"),
        cache_read=_first(usage.get("cache_read_input_tokens"), details.get("cached_tokens")),
        cache_creation=_first(usage.get("cache_creation_input_tokens"), details.get("cache_creation_tokens")),
    )


def _responses_usage(usage: Item) -> Usage:
    details = usage.get("input_tokens_details") or {}
    return _usage(
        usage.get("input_tokens"),
        usage.get("output_tokens"),
        usage.get("total_tokens"),
        cache_read=details.get("cached_tokens"),
        cache_creation=None,
    )


def _usage(
    input_tokens: int | None,
    output_tokens: int | None,
    total_tokens: int | None,
    *,
    cache_read: int | None,
    cache_creation: int | None,
) -> Usage:
    return Usage(
        input_tokens=input_tokens or 0,
        output_tokens=output_tokens or 0,
        total_tokens=total_tokens or (input_tokens or 0) + (output_tokens or 0),
        cache_read_input_tokens=cache_read,
        cache_creation_input_tokens=cache_creation,
    )


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _responses_item(item: Item, call_ids: CallIds) -> Item:
    match item.get("type"):
        case "message":
            return {"role": "assistant", "content": _responses_text(item)}
        case "function_call":
            return {
                "type": "function_call",
                "id": item.get("id") or "",
                "call_id": call_ids.accept(item.get("call_id")),
                "name": item.get("name") or "",
                "arguments": item.get("arguments") or "{}",
            }
        case _:
            # Unset fields are refused when the item is sent back; `status` is output only.
            return {key: value for key, value in item.items() if value is not None and key != "status"}


def _responses_text(item: Item) -> str:
    parts = item.get("content") or ()
    return "".join(part.get("text") or "" for part in parts)


def _responses_refusal(items: Iterable[Item]) -> str | None:
    parts = [part for item in items if item.get("type") == "message" for part in item.get("content") or ()]
    return "".join(part.get("refusal") or "" for part in parts) or None


def _responses_stop_reason(answer: Item, *, has_calls: bool) -> str:
    if reason := (answer.get("incomplete_details") or {}).get("reason"):
        return "length" if reason == "max_output_tokens" else str(reason)
    return "tool_calls" if has_calls else "stop"
