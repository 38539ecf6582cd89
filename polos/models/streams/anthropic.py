"""Streamed answers of Anthropic's messages API."""

from __future__ import annotations

import json
from typing import Any

from polos import serialization
from polos.models.request import Item
from polos.models.streams.assembler import Assembler, Sink, raise_if_error
from polos.types import Usage

# Which field of a block the pieces of each kind belong to.
_TEXT_PIECES = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


class AnthropicAssembler(Assembler):
    """A message, whose content blocks begin, grow and end."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self._message: Item = {"type": "message", "role": "assistant"}
        self._usage: Item = {}
        self._blocks: dict[int, Item] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}

    def add(self, event: Item) -> None:
        """Take one event; pings and kinds not known are passed over."""
        match event.get("type"):
            case "content_block_delta":
                self._grow(event["index"], event["delta"])
            case "content_block_start":
                self._begin(event["index"], event["content_block"])
            case "content_block_stop":
                self._end(event["index"])
            case "message_start":
                self._message.update(event["message"])
                self._add_usage(self._message.get("usage"))
            case "message_delta":
                self._message.update({**_without(event, "type", "delta", "usage"), **event["delta"]})
                self._add_usage(event.get("usage"))
                self.is_complete = bool(self._message.get("stop_reason"))
            case "message_stop":
                self.is_complete = self.is_finished = True
            case _:
                raise_if_error(event)

    def answer(self) -> Item:
        """Return the message."""
        for index in {index for index, _ in self._pieces}:
            self._end(index)  # an imitation that does not say where blocks end
        content = [self._blocks[index] for index in sorted(self._blocks)]
        return {**self._message, "content": content, "usage": self._usage}

    def counted(self) -> Usage:
        """Return what the first event says of the input, and the last of the output."""
        read, made = (
            self._usage.get("cache_read_input_tokens"),
            self._usage.get("cache_creation_input_tokens"),
        )
        input_tokens = (self._usage.get("input_tokens") or 0) + (read or 0) + (made or 0)
        output_tokens = self._usage.get("output_tokens") or 0
        return Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            total_tokens=input_tokens + output_tokens,
            cache_read_input_tokens=read,
            cache_creation_input_tokens=made,
        )

    def _add_usage(self, usage: Item | None) -> None:
        self._usage.update({name: value for name, value in (usage or {}).items() if value is not None})

    def _begin(self, index: int, block: Item) -> None:
        self._blocks[index] = block
        if block["type"] == "text":
            self.sink.text(block["text"])

    def _grow(self, index: int, delta: Item) -> None:
        kind = delta["type"]
        if kind in _TEXT_PIECES:
            text = delta[_TEXT_PIECES[kind]]
            self._pieces.setdefault((index, _TEXT_PIECES[kind]), []).append(text)
            self.written += len(text) if kind != "signature_delta" else 0
            if kind == "text_delta":
                self.sink.text(text)
        elif kind == "input_json_delta":
            self._pieces.setdefault((index, "input"), []).append(delta["partial_json"])
            self.written += len(delta["partial_json"])
        elif kind == "citations_delta":
            block = self._blocks[index]
            block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
        else:
            self._blocks[index].update(_without(delta, "type"))

    def _end(self, index: int) -> None:
        block = self._blocks[index]
        for name in (*_TEXT_PIECES.values(), "input"):
            if pieces := "".join(self._pieces.pop((index, name), ())):
                block[name] = _input(pieces) if name == "input" else (block.get(name) or "") + pieces
        if block["type"] == "tool_use":
            self.sink.call(
                {
                    "type": "function_call",
                    "call_id": block["id"],
                    "name": block["name"],
                    "arguments": json.dumps(block["input"]),  # as LiteLLM writes them
                }
            )


def _input(text: str) -> Any:
    """Return the arguments of a call; those that are no JSON in the wrapping Anthropic advises."""
    try:
        return serialization.parse(text)
    except ValueError:
        return {"INVALID_JSON": text}


def _without(item: Item, *names: str) -> Item:
    return {name: value for name, value in item.items() if name not in names}
