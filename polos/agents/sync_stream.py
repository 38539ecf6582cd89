"""`SyncStreamResult`: a streamed agent run for code that cannot await."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from polos.agents.stream import StreamResult
from polos.events import StreamEvent
from polos.types import AgentResult

if TYPE_CHECKING:
    from polos.client import SyncClient


class SyncStreamResult:
    """What `StreamResult` has, with iterators in place of async ones and nothing to await.

    Attributes:
        stream: The `StreamResult`; its other attributes can be read here too.
    """

    def __init__(self, stream: StreamResult) -> None:
        """Take a stream, such as ``StreamResult(ExecutionHandle(id=run_id, …), client)`` of a known run."""
        self.stream = stream
        self._sync: SyncClient = stream.client.sync  # type: ignore[attr-defined]  # a PolosClient

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @property
    def text_chunks(self) -> Iterator[str]:
        """The pieces of the answer as they come; see `TextChunkIterator`."""
        return self._sync.iterate(self.stream.text_chunks)

    @property
    def events(self) -> Iterator[StreamEvent]:
        """Everything that happens in the run and in what it starts; see `FullEventIterator`."""
        return self._sync.iterate(self.stream.events)

    def text(self) -> str:
        """Return what `StreamResult.text` does."""
        return self._sync.call(self.stream.text())

    def result(self) -> AgentResult:
        """Return what `StreamResult.result` does."""
        return self._sync.call(self.stream.result())

    def get(self) -> dict[str, Any]:
        """Return what `StreamResult.get` does."""
        return self._sync.call(self.stream.get())

    def __repr__(self) -> str:
        return f"Sync{self.stream!r}"
