"""From what a server returns to what the journal keeps and the model reads, within the size of a value."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from polos import serialization
from polos.errors import ValueTooLargeError
from polos.tools.content import ImageBlock, TextBlock, ToolContent

ROOM_BYTES = 1024  # of a value, kept for what is around a text that was cut

Block = TextContent | ImageContent | AudioContent | EmbeddedResource | ResourceLink


def value_of(result: CallToolResult, *, limit_bytes: int) -> Any:
    """Return the structured content if there is one, else a text, a list of blocks, or `ToolContent`.

    `ToolContent` is what has images. What is larger than `limit_bytes` as JSON is cut, or left out, and
    marked.
    """
    value = _value(result)
    if isinstance(value, ToolContent):
        return _with_images_that_fit(value, limit_bytes)
    try:
        serialization.dumps(value, limit_bytes=limit_bytes)
    except ValueTooLargeError:
        return cut(_as_text(value), limit_bytes - ROOM_BYTES)
    return value


def error_text_of(result: CallToolResult) -> str:
    """Return what a server says about a tool that failed."""
    texts = [block.text for block in result.content if isinstance(block, TextContent)]
    if not any(texts) and result.structured_content is not None:
        return serialization.dumps(result.structured_content)
    return "\n".join(text for text in texts if text) or "the server says no more than that the tool failed"


def cut(text: str, limit_bytes: int) -> str:
    """Return `text` within `limit_bytes` as JSON; what is cut is marked."""
    size = len(text.encode("utf-8", "replace"))
    keep = min(len(text), max(limit_bytes, 0))
    while keep and len(serialization.dumps(text[:keep]).encode()) > limit_bytes:
        keep //= 2
    return (
        text
        if keep == len(text)
        else f"{text[:keep]}… (cut: {size} bytes are more than POLOS_MAX_VALUE_BYTES)"
    )


def _value(result: CallToolResult) -> Any:
    structured, blocks = result.structured_content, list(result.content)
    if any(isinstance(block, ImageContent) for block in blocks):
        return ToolContent(blocks=[_shown(block) for block in blocks])
    if structured is not None:
        return structured
    if len(blocks) == 1 and isinstance(blocks[0], TextContent):
        return blocks[0].text
    return [_readable(block) for block in blocks]


def _shown(block: Block) -> TextBlock | ImageBlock:
    if isinstance(block, ImageContent):
        return ImageBlock(media_type=block.mime_type, data=block.data)
    if isinstance(block, TextContent):
        return TextBlock(text=block.text)
    return TextBlock(text=serialization.dumps(_readable(block)))


def _readable(block: Block) -> dict[str, Any]:
    """Return a block as JSON that a model can read: bytes are told of, not given."""
    match block:
        case TextContent():
            return {"type": "text", "text": block.text}
        case EmbeddedResource(resource=TextResourceContents() as resource):
            kind = {"mimeType": resource.mime_type} if resource.mime_type else {}
            return {"type": "resource", "uri": str(resource.uri), **kind, "text": resource.text}
        case EmbeddedResource(resource=BlobResourceContents() as resource):
            note = _note("resource", resource.mime_type, resource.blob)
            return {"type": "resource", "uri": str(resource.uri), "note": note}
        case ResourceLink():
            link = block.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"icons", "meta"})
            return {**link, "type": "resource_link"}
        case AudioContent():
            return {"type": "audio", "note": _note("audio", block.mime_type, block.data)}
    return {"type": block.type, "note": f"a block of type {block.type!r} is not given to the model"}


def _note(what: str, media_type: str | None, data: str) -> str:
    return f"{what} of type {media_type or 'unknown'}, {_size(data)} bytes, is not given to the model"


def _size(data: str) -> int:
    try:
        return len(base64.b64decode(data, validate=False))
    except (binascii.Error, ValueError):
        return len(data)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else serialization.dumps(value)


def _with_images_that_fit(content: ToolContent, limit_bytes: int) -> ToolContent:
    """Return the blocks in order, as long as they fit; those that do not are notes or cut texts."""
    room = limit_bytes - ROOM_BYTES
    kept: list[TextBlock | ImageBlock] = []
    for block in content.blocks:
        size = len(serialization.dumps(block).encode())
        fitting = block if size <= room else _smaller(block, room)
        kept.append(fitting)
        room = max(room - len(serialization.dumps(fitting).encode()), 0)
    return ToolContent(blocks=kept)


def _smaller(block: TextBlock | ImageBlock, room: int) -> TextBlock:
    if isinstance(block, TextBlock):
        return TextBlock(text=cut(block.text, room))
    note = f"image of type {block.media_type}, {_size(block.data)} bytes, left out"
    return TextBlock(text=f"({note}: larger than POLOS_MAX_VALUE_BYTES allows)")
