"""A model that says what a test lets it say, word by word, on the wire of chat completions."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from models.servers import Answer, Recorder, Seen, recorder

WAIT_SECONDS = 60.0
_WORD = re.compile(r"\S+\s*")


class Speech:
    """One answer: words that leave as a test allows it, then tool calls."""

    def __init__(self, text: str, calls: tuple[tuple[str, dict[str, Any]], ...], *, held: bool) -> None:
        self.words = _WORD.findall(text)
        self._calls = calls
        self._allowed = 0 if held else len(self.words) + 1
        self._changed = threading.Condition()
        self.begun = threading.Event()

    def allow(self, words: int) -> None:
        """Let so many more words out."""
        with self._changed:
            self._allowed += words
            self._changed.notify_all()

    def finish(self) -> None:
        """Let everything out that is left."""
        self.allow(len(self.words) + 1)

    def pieces(self) -> Iterator[bytes]:
        """Yield the stream, as far as it is allowed."""
        self.begun.set()
        yield _chunk({"role": "assistant", "content": ""})
        for number, word in enumerate(self.words):
            self._wait_for(number + 1)
            yield _chunk({"content": word})
        self._wait_for(len(self.words) + 1)
        for index, (name, arguments) in enumerate(self._calls):
            function = {"name": name, "arguments": json.dumps(arguments)}
            call = {
                "index": index,
                "id": f"call_{id(self)}_{index}",
                "type": "function",
                "function": function,
            }
            yield _chunk({"tool_calls": [call]})
        yield _chunk({}, "tool_calls" if self._calls else "stop")
        yield b"data: [DONE]\n\n"

    def _wait_for(self, words: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._allowed >= words, WAIT_SECONDS)


class ToldModel:
    """The speeches to come, and what was asked."""

    def __init__(self, record: Recorder) -> None:
        self._record = record
        self._to_come: list[Speech] = []
        self._all: list[Speech] = []
        record.answer = self._answer

    @property
    def environment(self) -> dict[str, str]:
        """What makes workers ask this model."""
        return {
            "OPENAI_BASE_URL": f"{self._record.url}/v1",
            "OPENAI_API_KEY": "none",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    @property
    def asked(self) -> list[list[dict[str, Any]]]:
        """The messages of each request that was answered."""
        return [seen.body["messages"] for seen in self._record.seen if "messages" in seen.body]

    def says(self, text: str = "", *calls: tuple[str, dict[str, Any]], held: bool = False) -> Speech:
        """Answer the next request that has no speech yet; `held` speeches wait for `allow` and `finish`."""
        speech = Speech(text, calls, held=held)
        self._to_come.append(speech)
        self._all.append(speech)
        return speech

    def finish(self) -> None:
        """Let go of everything that waits."""
        for speech in self._all:
            speech.finish()

    def _answer(self, seen: Seen) -> Answer:
        if not seen.path.endswith("/chat/completions"):
            return Answer({"error": {"message": "no such path"}}, status=404)
        if not self._to_come:
            return Answer({"error": {"message": "nobody told the model what to say"}}, status=400)
        speech = self._to_come.pop(0)
        if seen.body.get("stream"):
            return Answer(pieces=speech.pieces())
        choice = {"index": 0, "message": {"role": "assistant", "content": "".join(speech.words)}}
        return Answer(
            {**_HEAD, "object": "chat.completion", "choices": [{**choice, "finish_reason": "stop"}]}
        )


@contextmanager
def told_model() -> Iterator[ToldModel]:
    """Run such a model on a free port."""
    with recorder() as record:
        model = ToldModel(record)
        try:
            yield model
        finally:
            model.finish()


_HEAD = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4o"}


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    data = {**_HEAD, "object": "chat.completion.chunk", "choices": [choice]}
    return f"data: {json.dumps(data)}\n\n".encode()
