"""A model that charges a card, then says so, and counts how often each turn is paid for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from servers import Answer, Recorder, Seen, chat_answer, recorder

TOKENS = 18  # of each call


class Model:
    """The recorder, read as a bill."""

    def __init__(self, record: Recorder) -> None:
        self._record = record
        record.answer = _answer
        self.url = f"{record.url}/v1"

    def calls_of(self, run_id: str) -> dict[str, int]:
        """Return how many calls each turn of a run made, by idempotency key."""
        keys = [seen.headers.get("idempotency-key", "") for seen in self._record.seen]
        return dict(Counter(key.removeprefix(f"{run_id}:") for key in keys if key.startswith(run_id)))


def _answer(seen: Seen) -> Answer:
    body: dict[str, Any] = seen.body
    if body["messages"][-1]["role"] == "tool":
        return Answer(chat_answer("It is charged"))
    name = body["tools"][0]["function"]["name"]
    function = {"name": name, "arguments": '{"euros": 42}'}
    return Answer(chat_answer(calls=[{"id": "call_1", "type": "function", "function": function}]))


@contextmanager
def model() -> Iterator[Model]:
    """Run the model while the context lasts."""
    with recorder() as record:
        yield Model(record)
