"""What of a run's conversation its session remembers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polos.memory.blobs import Blob, without_blobs

Item = dict[str, Any]


def remembered(items: Sequence[Item], *, longest_blob: int) -> list[Item | None]:
    """Return what is remembered of each item, None for nothing: in the same order, and as many.

    Messages, and tool calls with their outputs, in the form that any provider takes. Reasoning and what only
    one provider can read belong to the run they were made in. A call without an output, and an output
    without a call, are left out: providers refuse such conversations.

    Args:
        items: Of one run, from its input to its answer.
        longest_blob: In bytes; of larger images and files only a note is kept.
    """
    paired = _paired_calls(items)
    return [_kept(item, paired, longest_blob) for item in items]


def unpaired(items: Sequence[Item]) -> list[str]:
    """Return the call ids of calls without output and of outputs without call."""
    paired = _paired_calls(items)
    return sorted(
        {
            str(item.get("call_id"))
            for item in items
            if item.get("type") in {"function_call", "function_call_output"}
            and item.get("call_id") not in paired
        }
    )


def _paired_calls(items: Sequence[Item]) -> set[Any]:
    """Return the ids of calls that are answered after they were made."""
    made, paired = set(), set()
    for item in items:
        match item.get("type"):
            case "function_call":
                made.add(item.get("call_id"))
            case "function_call_output" if item.get("call_id") in made:
                paired.add(item.get("call_id"))
    return paired


def _kept(item: Item, paired: set[Any], longest_blob: int) -> Item | None:
    match item.get("type", "message"):
        case "message":
            return _kept_message(item, longest_blob)
        case "function_call" if item.get("call_id") in paired:
            arguments = item.get("arguments") or "{}"
            return {
                "type": "function_call",
                "name": item["name"],
                "call_id": item["call_id"],
                "arguments": arguments,
            }
        case "function_call_output" if item.get("call_id") in paired:
            names = ("type", "call_id", "output", "is_error")
            plain, _ = without_blobs(
                {name: item[name] for name in names if name in item}, **_note(longest_blob)
            )
            return plain
    return None


def _kept_message(item: Item, longest_blob: int) -> Item | None:
    if not item.get("content"):
        return None  # providers refuse an empty message
    plain, _ = without_blobs(
        {"role": item.get("role", "user"), "content": item["content"]}, **_note(longest_blob)
    )
    return plain


def _note(longest: int) -> dict[str, Any]:
    return {"longest": longest, "note": _not_kept}


def _not_kept(blob: Blob) -> str:
    return f"[{blob.media_type or 'attachment'} of {blob.size:,} bytes, not kept in the session]"
