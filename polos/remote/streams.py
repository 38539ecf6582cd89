"""Events of the server as they come, through any number of connections, each event exactly once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from polos.errors import ServerUnavailableError
from polos.events import StreamEvent
from polos.remote.connection import Pauses, ServerConnection
from polos.remote.refusals import Trouble
from polos.remote.sse import Frame, frames

PATH = "/events/stream"
PATIENCE_SECONDS = 60.0  # with a server that is away
SILENCE_SECONDS = 45.0  # a server that has nothing to tell says so more often
POSITIONS = frozenset({"last_event_id", "last_sequence_id", "last_timestamp", "live"})


async def subscribed(
    connection: ServerConnection,
    params: Mapping[str, Any],
    *,
    is_last: Callable[[StreamEvent], bool],
    missing: Callable[[], Exception],
) -> AsyncIterator[StreamEvent]:
    """Yield the events of a stream up to its last; after a break, what follows the last one that was read.

    Args:
        connection: To the server.
        params: Of the query: what is followed, and from where.
        is_last: Whether the stream is complete with this event.
        missing: Makes the error for a stream that does not exist.

    Raises:
        ServerUnavailableError: The server was away for too long.
    """
    pauses, place = Pauses(PATIENCE_SECONDS), _Place()
    while True:
        try:
            async with aclosing(_connected(connection, params, place.position, missing)) as arriving:
                async for frame in arriving:
                    event = place.take(frame)
                    if event is not None or frame == Frame():  # or word that there is none
                        pauses.reset()
                    if event is not None:
                        yield event
                        if is_last(event):
                            return
        except _Complete:
            return
        except Trouble as trouble:
            await pauses.after(trouble, at_least_seconds=place.pause_seconds)


class _Place:
    """How far a reader has come, and how long the server asks it to pause before it comes back."""

    def __init__(self) -> None:
        self.position = ""
        self.pause_seconds = 0.0

    def take(self, frame: Frame) -> StreamEvent | None:
        """Go on to a frame; return its event, if it has one."""
        self.position = frame.id or self.position
        if frame.retry_seconds is not None:
            self.pause_seconds = frame.retry_seconds
        return None if frame.data is None else StreamEvent.model_validate_json(frame.data)


class _Complete(Exception):  # noqa: N818 - a signal
    """The server says that nothing follows."""


async def _connected(
    connection: ServerConnection,
    params: Mapping[str, Any],
    position: str,
    missing: Callable[[], Exception],
) -> AsyncGenerator[Frame, None]:
    """Yield the frames of one connection, from `position` if there is one.

    Raises:
        Trouble: It has ended, as every connection does at some time.
    """
    headers = {"Accept": "text/event-stream"}
    if position:
        headers["Last-Event-ID"] = position
        params = {name: value for name, value in params.items() if name not in POSITIONS}
    async with connection.streaming(
        PATH, params=params, headers=headers, silence_seconds=SILENCE_SECONDS
    ) as response:
        if response is None:
            raise missing()
        if response.status_code == 204:
            raise _Complete
        async for frame in frames(response.aiter_bytes()):
            if frame.event == "error" and frame.id is None:
                raise _broken(f"failed: {frame.data}", connection)
            yield frame
    raise _broken("ended before its time", connection)


def _broken(how: str, connection: ServerConnection) -> Trouble:
    error = ServerUnavailableError(f"The stream of the server at {connection.url} {how}")
    return Trouble(error, passes=True)
