"""Events of the server as they come, through any number of connections, each event exactly once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
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
    pauses = Pauses(PATIENCE_SECONDS)
    position, advised_seconds = "", 0.0
    while True:
        try:
            async for frame in _connected(connection, params, position, missing):
                if frame.retry_seconds is not None:
                    advised_seconds = frame.retry_seconds
                position = frame.id or position
                if frame.data is not None or frame == Frame():  # an event, or word that there is none
                    pauses.reset()
                if frame.data is not None:
                    event = StreamEvent.model_validate_json(frame.data)
                    yield event
                    if is_last(event):
                        return
        except _Complete:
            return
        except Trouble as trouble:
            await pauses.after(trouble, at_least_seconds=advised_seconds)


class _Complete(Exception):  # noqa: N818 - a signal
    """The server says that nothing follows."""


async def _connected(
    connection: ServerConnection,
    params: Mapping[str, Any],
    position: str,
    missing: Callable[[], Exception],
) -> AsyncIterator[Frame]:
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
