"""The model of random programs: its conversations follow the script in their input."""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from servers import Answer, Recorder, Seen, chat_answer, recorder
from week_model import Call

from fuzz.programs import Script

TOOLS = ("fuzz-act", "fuzz-sync-act")


class ScriptedModel:
    """Asks for two tools in each round, then answers; takes `pace_seconds`, more or less, each time."""

    def __init__(self, record: Recorder, *, pace_seconds: float) -> None:
        self._record = record
        self._pace_seconds = pace_seconds
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._refused: set[str] = set()
        self.pause_seconds = 0.0
        self.url = record.url
        record.answer = self._answer

    @property
    def calls(self) -> list[Call]:
        with self._lock:
            return list(self._calls)

    def _answer(self, seen: Seen) -> Answer:
        key = seen.headers.get("idempotency-key", "")
        script = Script.model_validate_json(_input(seen.body))
        is_refused = script.refused and self._first_time(key)
        with self._lock:
            status = 429 if is_refused else 200
            self._calls.append(Call(key, seen.path.split("/")[1], time.time(), status))
            self._record.seen.clear()  # nobody reads them, and there are many
        if is_refused:
            return Answer({"error": {"message": "later"}}, status=429, headers={"retry-after": "0.1"})
        seconds = self._pace_seconds * (0.2 + 1.6 * (zlib.crc32(key.encode()) % 1000) / 1000)
        if seen.body.get("stream"):
            return Answer(pieces=_streamed(script, seen.body, seconds))
        time.sleep(seconds)
        return Answer(_whole(script, seen.body))

    def _first_time(self, key: str) -> bool:
        with self._lock:
            is_new = key not in self._refused
            self._refused.add(key)
            return is_new


def _asked_last(body: dict[str, Any]) -> int:
    """Return which message is the input of this run; those before it are what its session remembers."""
    return max(place for place, message in enumerate(body["messages"]) if message["role"] == "user")


def _input(body: dict[str, Any]) -> str:
    content = body["messages"][_asked_last(body)]["content"]
    return content if isinstance(content, str) else str(content[0]["text"])


def _calls(script: Script, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tool calls of this answer, by the number of results in the conversation: none at its end."""
    since = body["messages"][_asked_last(body) :]
    number = sum(message["role"] == "tool" for message in since) // len(TOOLS)
    if number == script.rounds:
        return []
    return [
        {
            "id": f"call_{number}_{place}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps({"path": script.tool_path(number, place)})},
        }
        for place, name in enumerate(TOOLS)
    ]


def _whole(script: Script, body: dict[str, Any]) -> dict[str, Any]:
    calls = _calls(script, body)
    return chat_answer(calls=calls) if calls else chat_answer(script.answer)


def _streamed(script: Script, body: dict[str, Any], seconds: float) -> Iterator[bytes]:
    """Yield an answer piece by piece, the whole in so many seconds."""
    calls = [{"index": place, **call} for place, call in enumerate(_calls(script, body))]
    words = [] if calls else re.findall(r"\S+\s*", script.answer)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"tool_calls": calls}] if calls else [{"content": word} for word in words]
    for delta in deltas:
        yield _event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        time.sleep(seconds / len(deltas))
    reason = "tool_calls" if calls else "stop"
    yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    yield _event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}})
    yield b"data: [DONE]\n\n"


def _event(fields: dict[str, Any]) -> bytes:
    whole = {"id": "chat", "object": "chat.completion.chunk", "created": 1, "model": "the-model", **fields}
    return f"data: {json.dumps(whole)}\n\n".encode()


@contextmanager
def scripted_model(*, pace_seconds: float, address: str = "127.0.0.1") -> Iterator[ScriptedModel]:
    """Run the model while the context lasts."""
    with recorder(address) as record:
        yield ScriptedModel(record, pace_seconds=pace_seconds)
