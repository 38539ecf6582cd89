"""Streamed answers of Gemini."""

from __future__ import annotations

import json

from polos.models.request import Item
from polos.models.streams.assembler import Assembler, Sink, raise_if_error
from polos.types import Usage


class GeminiAssembler(Assembler):
    """Answers of a few parts each; there is no last word, the connection ends."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink)
        self._answer: Item = {}
        self._candidate: Item = {}
        self._parts: list[Item] = []

    def add(self, event: Item) -> None:
        """Take one partial answer."""
        raise_if_error(event)
        self._answer.update({name: value for name, value in event.items() if name != "candidates"})
        for candidate in event.get("candidates") or ():
            if not candidate.get("index"):
                self._add_candidate(candidate)
        if (event.get("promptFeedback") or {}).get("blockReason"):
            self.is_complete = True

    def answer(self) -> Item:
        """Return the answer."""
        if not self._candidate:
            return self._answer
        content = {"role": "model", "parts": self._parts}
        return {**self._answer, "candidates": [{**self._candidate, "content": content}]}

    def counted(self) -> Usage:
        """Return what the last event said: each counts what came so far."""
        usage = self._answer.get("usageMetadata") or {}
        input_tokens = usage.get("promptTokenCount") or 0
        output_tokens = (usage.get("candidatesTokenCount") or 0) + (usage.get("thoughtsTokenCount") or 0)
        return Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            total_tokens=input_tokens + output_tokens,
            cache_read_input_tokens=usage.get("cachedContentTokenCount"),
        )

    def _add_candidate(self, candidate: Item) -> None:
        self._candidate.update({name: value for name, value in candidate.items() if name != "content"})
        for part in (candidate.get("content") or {}).get("parts") or ():
            self._add_part(part)
        if candidate.get("finishReason"):
            self.is_complete = True

    def _add_part(self, part: Item) -> None:
        self.written += len(part.get("text") or "")
        last = self._parts[-1] if self._parts else {}
        if _is_text(part) and _is_text(last) and _may_join(last, part):
            last["text"] += part["text"]
            last.update({name: value for name, value in part.items() if name != "text"})
        else:
            self._parts.append(part)
        if _is_text(part) and not part.get("thought"):
            self.sink.text(part["text"])
        elif call := part.get("functionCall"):
            self._deliver(call)

    def _deliver(self, call: Item) -> None:
        arguments = json.dumps(call.setdefault("args", {}), ensure_ascii=False)  # as LiteLLM writes them
        self.written += len(arguments)
        item = {
            "type": "function_call",
            "call_id": call.get("id"),
            "name": call["name"],
            "arguments": arguments,
        }
        self.sink.call(item)


def _is_text(part: Item) -> bool:
    return isinstance(part.get("text"), str)


def _may_join(last: Item, part: Item) -> bool:
    """Whether `part` goes on with `last`: of the same kind, and no signature in between."""
    return bool(last.get("thought")) == bool(part.get("thought")) and "thoughtSignature" not in last
