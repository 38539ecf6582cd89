"""Streamed answers of Ollama's own chat API."""

from __future__ import annotations

import json

from polos.models.request import Item
from polos.models.streams.assembler import Assembler, Sink, raise_if_error
from polos.models.streams.thoughts import ThoughtFilter


class OllamaAssembler(Assembler):
    """Answers with a piece of the message each; tool calls come whole."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self._answer: Item = {}
        self._texts: dict[str, list[str]] = {"content": []}
        self._calls: list[Item] = []
        self._thoughts = ThoughtFilter()

    def add(self, event: Item) -> None:
        """Take one line."""
        raise_if_error(event)
        self._answer = event
        self._add_message(event.get("message") or {})
        self.is_complete = self.is_finished = bool(event.get("done"))

    def answer(self) -> Item:
        """Return the last line with the whole message in it."""
        texts = {name: "".join(parts) for name, parts in self._texts.items()}
        calls = {"tool_calls": self._calls} if self._calls else {}
        return {**self._answer, "message": {"role": "assistant", **texts, **calls}}

    def _add_message(self, message: Item) -> None:
        self.written += sum(len(message.get(name) or "") for name in ("thinking", "content"))
        if thinking := message.get("thinking"):
            self._texts.setdefault("thinking", []).append(thinking)
        if text := message.get("content"):
            self._texts["content"].append(text)
            self.sink.text(self._thoughts.visible(text))
        for call in message.get("tool_calls") or ():
            self._add_call(call)

    def _add_call(self, call: Item) -> None:
        self._calls.append(call)
        function = call["function"]
        arguments = function.get("arguments")
        self.sink.call(
            {
                "type": "function_call",
                "call_id": call.get("id"),
                "name": function.get("name") or "",
                "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments or {}),
            }
        )
