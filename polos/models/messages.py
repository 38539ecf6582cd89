"""The canonical conversation, written as chat messages or as OpenAI Responses input.

Only this module knows both sides; a provider's answer is turned back in `polos.models.answers`.
"""

from __future__ import annotations

import json
from typing import Any

from polos import serialization
from polos.models.blocks import blocks_as_text, chat_content, responses_content
from polos.models.request import Item


def chat_messages(
    items: list[Item],
    *,
    system_prompt: str | None = None,
    with_reasoning: bool = False,
    tool_images: bool = True,
) -> list[Item]:
    """Return `items` as the messages LiteLLM's completion takes.

    Reasoning, text and calls of one answer become one assistant message. Items only another API
    knows, such as the built-in tools of OpenAI Responses, are left out.

    Args:
        items: The conversation.
        system_prompt: Goes first.
        with_reasoning: Whether the provider wants to see reasoning again that it did not sign.
        tool_images: Whether the provider takes images that tools returned; else they are notes.
    """
    messages: list[Item] = [{"role": "system", "content": system_prompt}] if system_prompt else []
    for item in items:
        match item.get("type", "message"):
            case "function_call":
                _assistant(messages).setdefault("tool_calls", []).append(_chat_call(item))
            case "function_call_output":
                messages.append(
                    {"role": "tool", "tool_call_id": item["call_id"], "content": _output(item, tool_images)}
                )
            case "reasoning":
                _add_reasoning(messages, item, with_reasoning=with_reasoning)
            case "message":
                _add_message(messages, item)
    return messages


def responses_input(items: list[Item]) -> list[Item]:
    """Return `items` as input of OpenAI Responses; what other providers left behind is dropped."""
    return [converted for item in items if (converted := _responses_item(item)) is not None]


def chat_tools(tools: list[Item]) -> list[Item]:
    """Return function tools in the nested form of chat completions, others unchanged."""
    return [_chat_tool(tool) for tool in tools]


def responses_tools(tools: list[Item]) -> list[Item]:
    """Return function tools in the flat form of OpenAI Responses, others unchanged."""
    return [_responses_tool(tool) for tool in tools]


def failed_call_ids(items: list[Item]) -> set[str]:
    """Return the call ids whose tool failed."""
    return {
        item["call_id"]
        for item in items
        if item.get("type") == "function_call_output" and item.get("is_error")
    }


def known_call_ids(items: list[Item]) -> set[str]:
    """Return the call ids the conversation has used."""
    return {item["call_id"] for item in items if item.get("type") == "function_call"}


def _assistant(messages: list[Item]) -> Item:
    """Return the assistant message the last answer is being merged into, a new one if there is none."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    return messages[-1]


def _chat_call(item: Item) -> Item:
    call: Item = {
        "id": item["call_id"],
        "type": "function",
        "function": {"name": item["name"], "arguments": _object(item.get("arguments"))},
    }
    if fields := item.get("provider_specific_fields"):
        call["provider_specific_fields"] = fields
    return call


def _object(arguments: str | None) -> str:
    """Return the arguments of a call as a JSON object; what is none, wrapped as Anthropic advises.

    Most servers read the calls of a conversation, and refuse all of it for one that was malformed.
    """
    try:
        decoded = serialization.parse(arguments or "{}")
    except ValueError:
        decoded = arguments
    if isinstance(decoded, dict):
        return arguments or "{}"
    return json.dumps({"INVALID_JSON": arguments})


def _output(item: Item, tool_images: bool) -> Any:
    content = _output_text(item)
    return content if tool_images or not isinstance(content, list) else blocks_as_text(content)


def _output_text(item: Item) -> Any:
    output = item.get("output")
    return chat_content(output) if isinstance(output, list) else ("" if output is None else str(output))


def _add_reasoning(messages: list[Item], item: Item, *, with_reasoning: bool) -> None:
    if blocks := item.get("thinking_blocks"):
        _assistant(messages).setdefault("thinking_blocks", []).extend(blocks)
    elif with_reasoning and (text := item.get("reasoning_content")):
        _assistant(messages)["reasoning_content"] = text


def _add_message(messages: list[Item], item: Item) -> None:
    if _role(item) != "assistant":
        messages.append({"role": item["role"], "content": chat_content(item.get("content"))})
        return
    message = _assistant(messages)
    message["content"] = _joined(message["content"], chat_content(item.get("content")))
    if fields := item.get("provider_specific_fields"):
        message["provider_specific_fields"] = fields


def _role(item: Item) -> str:
    """Return who said a message.

    Raises:
        ValueError: It does not say.
    """
    role = item.get("role")
    if not isinstance(role, str) or not role:
        raise ValueError(f"A message must have a role, such as 'user': {item!r:.200}")
    return role


def _joined(before: Any, content: Any) -> Any:
    if not before or not content:
        return content or before
    if isinstance(before, str) and isinstance(content, str):
        return f"{before}\n{content}"
    return _as_blocks(before) + _as_blocks(content)


def _as_blocks(content: Any) -> list[Item]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _chat_tool(tool: Item) -> Item:
    if tool.get("type") != "function" or "function" in tool:
        return tool
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}


def _responses_tool(tool: Item) -> Item:
    if tool.get("type") != "function":
        return tool
    # OpenAI's default is strict, which turns optional parameters into required ones.
    return {"type": "function", "strict": False, **tool.get("function", {}), **_without_function(tool)}


def _without_function(tool: Item) -> Item:
    return {key: value for key, value in tool.items() if key != "function"}


def _responses_item(item: Item) -> Item | None:
    match item.get("type", "message"):
        case "function_call":
            return {
                "type": "function_call",
                "call_id": item["call_id"],
                "name": item["name"],
                "arguments": item.get("arguments") or "{}",
            }
        case "function_call_output":
            output = item.get("output")
            output = (
                responses_content(output, role="user") if isinstance(output, list) else _output_text(item)
            )
            return {"type": "function_call_output", "call_id": item["call_id"], "output": output}
        case "reasoning":
            return None if item.keys() & {"thinking_blocks", "reasoning_content"} else item
        case "message":
            role = _role(item)
            return {"role": role, "content": responses_content(item.get("content"), role=role)}
        case _:
            return item
