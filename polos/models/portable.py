"""What of a conversation every provider understands: all but what one provider left for itself."""

from __future__ import annotations

from collections.abc import Iterable

from polos.models.answers import SERVER_TOOL_MARK
from polos.models.request import Item

_FIELDS = {
    "message": ("role", "content"),
    "function_call": ("type", "call_id", "name", "arguments"),
    "function_call_output": ("type", "call_id", "output", "is_error"),
}


def portable_items(items: Iterable[Item]) -> list[Item]:
    """Return `items` for another provider or model than the one that answered so far.

    Messages, calls and their outputs stay. Reasoning, signatures, ids of one provider's records and calls of
    its built-in tools are left out: another refuses them, or believes them its own.
    """
    return [found for item in items if (found := _portable(item)) is not None]


def _portable(item: Item) -> Item | None:
    kind = item.get("type", "message")
    if kind not in _FIELDS or str(item.get("call_id") or "").startswith(SERVER_TOOL_MARK):
        return None
    found = {name: item[name] for name in _FIELDS[kind] if name in item}
    is_empty = kind == "message" and found.get("role") == "assistant" and not found.get("content")
    return None if is_empty else found
