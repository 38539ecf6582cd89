"""Pieces of JSON objects, as chat completions stream them, merged into whole ones."""

from __future__ import annotations

from typing import Any

from polos.models.request import Item

# Sent again with each piece rather than in pieces.
_REPEATED = frozenset(("role", "type", "id", "index", "name", "format"))


def merge(whole: Item, piece: Item) -> None:
    """Add `piece` to `whole`, in place: texts are joined, objects and lists merged."""
    for name, value in piece.items():
        before = whole.get(name)
        if before is None or name in _REPEATED:
            whole[name] = value if value is not None else before
        elif value is not None:
            whole[name] = _joined(before, value)


def merge_thoughts(blocks: list[Item], pieces: list[Item]) -> None:
    """Add pieces of thinking blocks, which have no index; a signature ends a block."""
    for piece in pieces:
        last = blocks[-1] if blocks else {}
        is_more = piece.get("type") == last.get("type") == "thinking" and not last.get("signature")
        if is_more:
            last["thinking"] = (last.get("thinking") or "") + (piece.get("thinking") or "")
            last["signature"] = piece.get("signature") or last.get("signature")
        else:
            blocks.append(dict(piece))


def _joined(before: Any, value: Any) -> Any:
    if isinstance(before, str) and isinstance(value, str):
        return before + value
    if isinstance(before, dict) and isinstance(value, dict):
        merge(before, value)
        return before
    if isinstance(before, list) and isinstance(value, list):
        _merge_lists(before, value)
        return before
    return value


def _merge_lists(whole: list[Any], pieces: list[Any]) -> None:
    for piece in pieces:
        index = piece.get("index") if isinstance(piece, dict) else None
        found = next((item for item in whole if index is not None and item.get("index") == index), None)
        if found is None:
            whole.append(piece)
        else:
            merge(found, piece)
