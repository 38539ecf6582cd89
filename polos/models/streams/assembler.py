"""What the readers of all wires have in common: whom they tell, what they end with, how they fail."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from polos.models.request import Item
from polos.types import Usage


class Sink(Protocol):
    """Whoever wants the pieces of an answer while it comes."""

    def text(self, text: str) -> None:
        """Take more of the text; may be empty."""

    def call(self, item: Item) -> None:
        """Take a complete tool call, as a canonical ``function_call`` item with the provider's call id."""


class StreamError(Exception):
    """A stream that did not become an answer.

    Attributes:
        said: The error the provider sent in the stream, None when it just broke.
    """

    def __init__(self, message: str, *, said: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.said = said


class Assembler(ABC):
    """Takes the events of one stream in order, and has the whole answer at the end.

    Attributes:
        is_complete: Whether the answer is whole should the stream end here.
        is_finished: Whether the provider has said that nothing follows.
        written: Characters of output so far: text, reasoning and arguments of calls.
    """

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.is_complete = False
        self.is_finished = False
        self.written = 0

    @abstractmethod
    def add(self, event: Item) -> None:
        """Take one event.

        Raises:
            StreamError: It is an error of the provider.
        """

    @abstractmethod
    def answer(self) -> Item:
        """Return the body a call that is not streamed would have had; once, after the last event."""

    def counted(self) -> Usage:
        """Return the tokens the provider has told of so far, for a stream that ends here."""
        return Usage()


def raise_if_error(event: Item) -> None:
    """Raise what the provider says went wrong, if it does."""
    error = event.get("error") or (event if event.get("type") == "error" else None)
    if error:
        said = error if isinstance(error, Mapping) else {"message": str(error)}
        raise StreamError("the provider reported an error", said=said)
