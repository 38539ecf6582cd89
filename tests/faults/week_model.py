"""The model of the programs under load: takes its time, and knows which worker made which call."""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from servers import Answer, Recorder, Seen, chat_answer, recorder

TRANSFER = "transfer_to_week-closer"


@dataclass(frozen=True)
class Call:
    """A model call: `key` is the run and the turn, `worker` who made it. Times are this machine's."""

    key: str
    worker: str
    began_at: float
    status: int


class PacedModel:
    """Asks for two tools, then for one more, then answers; takes `pace_seconds`, more or less, each time."""

    def __init__(self, record: Recorder, *, pace_seconds: float) -> None:
        self._record = record
        self._pace_seconds = pace_seconds
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self.pause_seconds = 0.0  # what a patient run is told to wait before its second try
        self.url = record.url
        record.answer = self._answer

    @property
    def calls(self) -> list[Call]:
        with self._lock:
            return list(self._calls)

    def _answer(self, seen: Seen) -> Answer:
        key = seen.headers.get("idempotency-key", "")
        answer = self._refusal(key, seen) or _said(seen.body)
        with self._lock:
            self._calls.append(Call(key, seen.path.split("/")[1], time.time(), answer.status))
            self._record.seen.clear()  # nobody reads them, and there are many
        time.sleep(self._pace_seconds * (0.2 + 1.6 * (zlib.crc32(key.encode()) % 1000) / 1000))
        return answer

    def _refusal(self, key: str, seen: Seen) -> Answer | None:
        if not self.pause_seconds or seen.body.get("tools") or any(call.key == key for call in self.calls):
            return None
        headers = {"retry-after": f"{self.pause_seconds:g}"}
        return Answer({"error": {"message": "later"}}, status=429, headers=headers)


def _said(body: dict[str, Any]) -> Answer:
    """Return what comes next in a conversation, by the number of tool results in it."""
    messages = json.dumps(body["messages"])
    if "You check answers" in messages:
        return Answer(chat_answer('{"passed": true, "reason": "It is."}'))
    tools = {tool["function"]["name"] for tool in body.get("tools") or ()}
    results = sum(message["role"] == "tool" for message in body["messages"])
    if tools and results == 0:
        return _calls(("charge", 1), ("stamp", 1))
    if TRANSFER in tools:
        return _calls((TRANSFER, 0))
    if tools and results == (2 if "stamp" in tools else 3):
        return _calls(("charge", 2))
    [number] = set(re.findall(r"Order (\d+)", messages))
    checked = "Checked: " if "was not accepted" in messages else ""
    return Answer(chat_answer(f"{checked}Done for {number}"))


def _calls(*wanted: tuple[str, int]) -> Answer:
    calls = [
        {
            "id": f"call_{name}_{item}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps({"item": item})},
        }
        for name, item in wanted
    ]
    return Answer(chat_answer(calls=calls))


@contextmanager
def paced_model(*, pace_seconds: float, address: str = "127.0.0.1") -> Iterator[PacedModel]:
    """Run the model while the context lasts."""
    with recorder(address) as record:
        yield PacedModel(record, pace_seconds=pace_seconds)
