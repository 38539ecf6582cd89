"""Content blocks of messages: the three styles users write, turned into the one an API takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polos.models.request import Item


def chat_content(content: Any) -> Any:
    """Return `content` with every block in the style of chat completions."""
    return _each_block(content, _chat_block)


def responses_content(content: Any, *, role: str) -> Any:
    """Return `content` with every block in the style of OpenAI Responses."""
    text_type = "output_text" if role == "assistant" else "input_text"
    return _each_block(content, lambda block: _responses_block(_chat_block(block), text_type))


def blocks_as_text(blocks: list[Item]) -> str:
    """Return blocks of chat completions as one text, for where nothing else is taken; the rest are notes."""
    return "\n".join(block["text"] if block.get("type") == "text" else _note(block) for block in blocks)


def _note(block: Item) -> str:
    kind = str(block.get("type", "something")).removesuffix("_url")
    return f"({kind} left out: this provider takes only text from tools)"


def _each_block(content: Any, convert: Callable[[Item], Item]) -> Any:
    if not isinstance(content, list):
        return content
    return [_converted(block, convert) for block in content]


def _converted(block: Any, convert: Callable[[Item], Item]) -> Item:
    """Return one block of a message in another style.

    Raises:
        ValueError: It is none, or lacks what its type says it has.
    """
    if isinstance(block, str):
        block = {"type": "text", "text": block}
    if not isinstance(block, dict):
        raise ValueError(f"A content block must be a text or an object with a type, not {block!r:.100}")
    try:
        return convert(block)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"A content block of type {block.get('type')!r} is not complete ({error!r}): {block!r:.200}"
        ) from error


def _chat_block(block: Item) -> Item:
    match block.get("type"):
        case "text" | "input_text" | "output_text":
            return {"type": "text", "text": block.get("text", "")}
        case "image_url":
            image = block["image_url"]
            return {"type": "image_url", "image_url": {"url": image} if isinstance(image, str) else image}
        case "input_image" if block.get("image_url"):
            detail = {"detail": block["detail"]} if block.get("detail") else {}
            return {"type": "image_url", "image_url": {"url": block["image_url"], **detail}}
        case "image" if isinstance(block.get("source"), dict):
            return {"type": "image_url", "image_url": {"url": _source_url(block["source"])}}
        case "input_file":
            return {"type": "file", "file": _file(block)}
        case _:
            return block


def _source_url(source: Item) -> str:
    """Return an Anthropic image source as a URL."""
    if source.get("type") == "base64":
        return f"data:{source.get('media_type', 'image/png')};base64,{source['data']}"
    return str(source.get("url", ""))


def _file(block: Item) -> Item:
    if url := block.get("file_url"):
        return {"file_id": url}  # LiteLLM takes a URL here
    return {key: block[key] for key in ("file_id", "file_data", "filename") if block.get(key)}


def _responses_block(block: Item, text_type: str) -> Item:
    match block.get("type"):
        case "text":
            return {"type": text_type, "text": block["text"]}
        case "image_url":
            image = block["image_url"]
            return {"type": "input_image", "image_url": image["url"], "detail": image.get("detail", "auto")}
        case "file":
            return {"type": "input_file", **_responses_file(block["file"])}
        case "document" if isinstance(block.get("source"), dict):
            return {
                "type": "input_file",
                "filename": block.get("title", "document"),
                **_document(block["source"]),
            }
        case _:
            return block


def _responses_file(file: Item) -> Item:
    file_id = str(file.get("file_id", ""))
    return {"file_url": file_id} if file_id.startswith("http") else file


def _document(source: Item) -> Item:
    return (
        {"file_data": _source_url(source)}
        if source.get("type") == "base64"
        else {"file_url": source.get("url")}
    )
