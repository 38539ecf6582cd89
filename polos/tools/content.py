"""What a tool may return for the model to see rather than to read as JSON: texts and images."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from polos.serialization import class_name


class TextBlock(BaseModel):
    """A text."""

    type: Literal["text"] = "text"
    text: str


class ImageBlock(BaseModel):
    """An image: its media type, such as ``image/png``, and its bytes in base64."""

    type: Literal["image"] = "image"
    media_type: str
    data: str


class ToolContent(BaseModel):
    """Texts and images, in order. Providers that take no images from tools are given a note instead."""

    blocks: list[TextBlock | ImageBlock]

    def for_model(self) -> list[dict[str, Any]]:
        """Return the blocks of the item that answers a tool call."""
        return [_for_model(block) for block in self.blocks]


CONTENT = class_name(ToolContent)


def content_of(value: object) -> ToolContent | None:
    """Return `value`, recorded as a `ToolContent`, as one; None where a hook has put something else there."""
    if isinstance(value, ToolContent):
        return value
    try:
        return ToolContent.model_validate(value)
    except ValidationError:
        return None


def _for_model(block: TextBlock | ImageBlock) -> dict[str, Any]:
    if isinstance(block, TextBlock):
        return {"type": "input_text", "text": block.text}
    return {"type": "input_image", "image_url": f"data:{block.media_type};base64,{block.data}"}
