"""A model's answer told to readers while it is made, piece by piece."""

from __future__ import annotations

from typing import Any

from polos import event_data as events
from polos.engine.runtime import Runtime
from polos.models.request import Chunk

MAX_DELTA_CHARACTERS = 8000  # some providers send whole answers in one piece


class Deltas:
    """Tells one attempt at one turn. Its method `tell` takes the pieces."""

    def __init__(
        self, runtime: Runtime, *, root_id: str, where: dict[str, Any], number: int, attempt: int
    ) -> None:
        self._feed = runtime.feed
        self._root_id = root_id
        self._where = where
        self._number = number
        self._attempt = attempt
        self._chunks = 0
        self._characters = 0

    def begin(self) -> None:
        """Tell that the model is asked: whatever an earlier attempt said is void."""
        self._live(events.stream_started(self._number, self._attempt, self._where))

    def tell(self, chunk: Chunk) -> None:
        """Tell a piece of text, or a complete tool call."""
        if not isinstance(chunk, str):
            self._one(events.tool_call, chunk.model_dump(mode="json"))
            return
        for start in range(0, len(chunk), MAX_DELTA_CHARACTERS):
            piece = chunk[start : start + MAX_DELTA_CHARACTERS]
            self._one(events.text_delta, piece)
            self._characters += len(piece)

    def _one(self, build: Any, content: Any) -> None:
        self._live(build(self._number, self._chunks, content, self._attempt, self._where))
        self._chunks += 1

    def _live(self, event: tuple[str, dict[str, Any]]) -> None:
        self._feed.live(self._root_id, event, keep=True, offset=self._characters)
