"""Passes the pieces of a streamed answer on, so that together they are what the whole answer says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from polos.models.answers import CallIds, tool_call
from polos.models.request import Chunk, Item, ModelAnswer

logger = logging.getLogger("polos.models")


class Delivery:
    """What has been passed on of one answer.

    Args:
        on_chunk: Told of each piece.
        known_call_ids: Those the conversation has used already.

    Attributes:
        raised: What `on_chunk` raised, which is nothing the provider did.
    """

    def __init__(self, on_chunk: Callable[[Chunk], None], known_call_ids: Iterable[str]) -> None:
        self.raised: Exception | None = None
        self._on_chunk = on_chunk
        self._known_call_ids = set(known_call_ids)
        self._fresh = CallIds(self._known_call_ids)
        self._text: list[str] = []
        self._half = ""
        self._call_ids: list[str] = []

    def text(self, text: str) -> None:
        """Pass on more of the text."""
        if text := self._of_whole_characters(text):
            self._text.append(text)
            self._pass_on(text)

    def call(self, item: Item) -> None:
        """Pass on a complete tool call, under an id that is unique in the conversation."""
        call_id = self._fresh.accept(item.get("call_id"))
        self._call_ids.append(call_id)
        self._pass_on(
            tool_call(
                {**item, "call_id": call_id, "name": item["name"], "arguments": item["arguments"] or "{}"}
            )
        )

    def call_ids(self) -> CallIds:
        """Return what gives the calls of the whole answer the ids they were passed on with."""
        return CallIds(self._known_call_ids, first=self._call_ids)

    def complete(self, answer: ModelAnswer) -> None:
        """Pass on what only the whole answer shows: everything, where nothing was streamed."""
        content, passed_on = answer.content or "", "".join(self._text)
        if not content.startswith(passed_on):
            logger.warning("The text of a streamed answer of %r is not what was streamed", answer.model)
        else:
            self.text(content[len(passed_on) :])
        for call in answer.tool_calls[len(self._call_ids) :]:
            self._pass_on(call)

    def _of_whole_characters(self, text: str) -> str:
        """Return `text` without half an emoji at its end, which waits for the other half."""
        if self._half:
            text = (self._half + text).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
            self._half = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return text

    def _pass_on(self, chunk: Chunk) -> None:
        try:
            self._on_chunk(chunk)
        except Exception as error:
            self.raised = error
            raise
