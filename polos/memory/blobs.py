"""Images and files inside messages: found in all three styles of content blocks, and replaced by notes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Item = dict[str, Any]
_STYLES = {"input_image": "input_text", "input_file": "input_text"}  # others: "text"


@dataclass(frozen=True)
class Blob:
    """Base64 data inside a message.

    Attributes:
        media_type: Such as ``image/png``; empty where it is not said.
        size: In bytes, decoded.
    """

    media_type: str
    size: int


def without_blobs(item: Item, *, longest: int, note: Callable[[Blob], str]) -> tuple[Item, int]:
    """Return an item with a text block instead of each blob of more than `longest` bytes, and how many.

    Args:
        item: Of a conversation; it is not changed.
        longest: In bytes, decoded.
        note: Makes the text.
    """
    found = 0

    def checked(block: Any) -> Any:
        nonlocal found
        blob = _blob_of(block)
        if blob is None or blob.size <= longest:
            return block
        found += 1
        return {"type": _STYLES.get(block["type"], "text"), "text": note(blob)}

    for name in ("content", "output"):
        if isinstance(item.get(name), list):
            item = {**item, name: [checked(block) for block in item[name]]}
    return item, found


def _blob_of(block: Any) -> Blob | None:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        return None
    match block:
        case {"type": "image_url" | "input_image", "image_url": {"url": str(url)}}:
            return _in_url(url)
        case {"type": "image_url" | "input_image", "image_url": str(url)}:
            return _in_url(url)
        case {"type": "input_file", "file_data": str(data)} | {
            "type": "file",
            "file": {"file_data": str(data)},
        }:
            return _in_url(data) or Blob("", _decoded_size(data))
        case {"source": {"type": "base64", "data": str(data), **source}}:
            return Blob(str(source.get("media_type", "")), _decoded_size(data))
        case {"type": "input_audio", "input_audio": {"data": str(data), **audio}}:
            return Blob(f"audio/{audio.get('format', '')}", _decoded_size(data))
    return None


def _in_url(url: str) -> Blob | None:
    if not url.startswith("data:"):
        return None
    head, _, data = url.partition(",")
    return Blob(head[len("data:") :].partition(";")[0], _decoded_size(data))


def _decoded_size(data: str) -> int:
    return len(data) * 3 // 4
