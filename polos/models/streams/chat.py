"""Streamed chat completions, as OpenAI and everybody who imitates it send them."""

from __future__ import annotations

import json
from typing import Any

from polos.models.request import Item
from polos.models.streams.assembler import Assembler, Sink, raise_if_error
from polos.models.streams.merging import merge, merge_thoughts
from polos.models.streams.thoughts import ThoughtFilter

_ANSWER_FIELDS = ("id", "created", "model", "system_fingerprint", "service_tier")
# Found in pieces only: a message that comes whole does not have them.
_STREAM_FIELDS = frozenset(("channel", "token_id"))


class ChatAssembler(Assembler):
    """Chunks with deltas; only the first choice is read."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self._answer: Item = {"object": "chat.completion"}
        self._message: Item = {"role": "assistant", "content": None}
        self._texts: dict[str, list[str]] = {}
        self._finish_reason: str | None = None
        self._thoughts = ThoughtFilter()
        self._calls = ChatCalls(sink)

    def add(self, event: Item) -> None:
        """Take one chunk."""
        raise_if_error(event)
        for name in _ANSWER_FIELDS:
            if name not in self._answer and event.get(name):
                self._answer[name] = event[name]
        if usage := event.get("usage") or (event.get("x_groq") or {}).get("usage"):
            self._answer["usage"] = usage
        for choice in event.get("choices") or ():
            if not choice.get("index"):
                self._add_choice(choice)

    def answer(self) -> Item:
        """Return the chat completion."""
        texts = {name: "".join(parts) for name, parts in self._texts.items()}
        message = {**self._message, **texts}
        if self._calls.calls:
            message["tool_calls"] = self._calls.calls
        choice = {"index": 0, "message": message, "finish_reason": self._finish_reason}
        return {**self._answer, "choices": [choice]}

    def _add_choice(self, choice: Item) -> None:
        self._add_delta(choice.get("delta") or choice.get("message") or {})
        if reason := choice.get("finish_reason"):
            self._finish_reason = reason
            self._calls.deliver_all()
            self.is_complete = True

    def _add_delta(self, delta: Item) -> None:
        for name, value in delta.items():
            if name == "tool_calls":
                for piece in value or ():
                    self._calls.add(piece)
                    self.written += len(str((piece.get("function") or {}).get("arguments") or ""))
            elif isinstance(value, str) and name not in ("role", *_STREAM_FIELDS):
                self._add_text(name, value)
            else:
                self._add_field(name, value)

    def _add_text(self, name: str, text: str) -> None:
        self._texts.setdefault(name, []).append(text)
        self.written += len(text)
        if name == "content":
            self.sink.text(self._thoughts.visible(text))

    def _add_field(self, name: str, value: Any) -> None:
        if name == "thinking_blocks" and value:
            merge_thoughts(self._message.setdefault("thinking_blocks", []), value)
        elif name not in self._texts and (value is None or isinstance(value, list | dict)):
            merge(self._message, {name: value})


class ChatCalls:
    """The tool calls of one answer, put together from their pieces."""

    def __init__(self, sink: Sink) -> None:
        self.calls: list[Item] = []
        self._sink = sink
        self._latest: dict[int | None, Item] = {}
        self._delivered = 0

    def add(self, piece: Item) -> None:
        """Take one piece; a call is passed on when the next one begins or the answer ends."""
        index = piece.get("index")
        function = piece.get("function") or {}
        call = self._latest.get(index)
        if call is None or _is_another(call, piece, function):
            self._deliver(is_last=False)
            call = {"id": None, "type": "function", "function": {"name": None, "arguments": ""}}
            self.calls.append(call)
            self._latest[index] = call
        _merge_call(call, piece, function)

    def deliver_all(self) -> None:
        """Pass on what is left: the answer ends here."""
        self._deliver(is_last=True)

    def _deliver(self, *, is_last: bool) -> None:
        while self._delivered < len(self.calls):
            call = self.calls[self._delivered]
            if not is_last and not _is_whole(call["function"]["arguments"]):
                break
            self._delivered += 1
            self._sink.call(
                {
                    "type": "function_call",
                    "call_id": call["id"],
                    "name": call["function"]["name"] or "",
                    "arguments": call["function"]["arguments"] or "{}",
                }
            )


def _is_another(call: Item, piece: Item, function: Item) -> bool:
    """Whether `piece` begins a call of its own although its place is taken: not all servers count."""
    if piece.get("id") and call["id"]:
        return bool(piece["id"] != call["id"])
    return bool(function.get("name")) and _is_whole(call["function"]["arguments"])


def _merge_call(call: Item, piece: Item, function: Item) -> None:
    call["id"] = call["id"] or piece.get("id")
    whole = call["function"]
    whole["name"] = whole["name"] or function.get("name")
    if arguments := function.get("arguments"):
        whole["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)
    rest = {name: value for name, value in piece.items() if name not in ("index", "id", "type", "function")}
    if rest:
        merge(call, rest)


def _is_whole(arguments: str) -> bool:
    """Whether nothing can follow `arguments`: a JSON object that is closed."""
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return True
