"""Streamed answers of OpenAI's Responses API."""

from __future__ import annotations

from typing import Any

from polos.models.request import Item
from polos.models.streams.assembler import Assembler, Sink, raise_if_error

_ENDINGS = ("response.completed", "response.incomplete", "response.failed")
_TEXT_PIECE = "response.output_text.delta"


class ResponsesAssembler(Assembler):
    """Typed events, the last of which holds the whole answer."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self._response: Item = {}
        self._items: dict[int, Item] = {}
        self._text_index: Any = None

    def add(self, event: Item) -> None:
        """Take one event; kinds that add nothing to text and calls are passed over."""
        kind = event.get("type")
        if isinstance(event.get("delta"), str):
            self.written += len(event["delta"])
        if kind == _TEXT_PIECE:
            self._add_text(event.get("output_index", 0), event["delta"])
        elif kind == "response.output_item.done":
            self._add_item(event["output_index"], event["item"])
        elif kind in _ENDINGS:
            self._response = event["response"]
            self.is_complete = self.is_finished = True
        elif kind in (None, "error"):
            raise_if_error(event)

    def answer(self) -> Item:
        """Return the response."""
        items = [self._items[index] for index in sorted(self._items)]
        return {**self._response, "output": self._response.get("output") or items}

    def _add_text(self, index: Any, text: str) -> None:
        if not text:
            return
        if self._text_index not in (None, index):
            text = f"\n{text}"  # as `polos.models.answers` joins the messages of one answer
        self._text_index = index
        self.sink.text(text)

    def _add_item(self, index: int, item: Item) -> None:
        self._items[index] = item
        if item.get("type") == "function_call":
            self.sink.call(item)
