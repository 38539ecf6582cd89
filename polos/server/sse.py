"""Server-sent events: frames as they come, a sign of life in between, and an end whenever it must be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from polos import serialization
from polos.errors import ServiceUnavailableError
from polos.events import StreamEvent
from polos.journal.keys import is_live
from polos.server.errors import TYPES, UNAVAILABLE
from polos.server.services import Services

if TYPE_CHECKING:
    from polos.server.gate import Caller

logger = logging.getLogger("polos.server")

RECONNECT_MILLISECONDS = 1000
_LINE_ENDS = re.compile(r"[\r\n\0]")
_HEADERS = {
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # a proxy shall not collect what is to be seen at once
}


class EventStream(Response):
    """A response that ends with its events, with its client, with the server, or with the key of the caller.

    Memory stays what it is, however slow the client: an event is taken when the one before it has left. One
    that reads nothing for ``stream_stall_seconds`` is given up.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        services: Services,
        caller: Caller,
        first: asyncio.Future[StreamEvent],
        events: AsyncIterator[StreamEvent],
    ) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._services = services
        self._caller = caller
        self._first = first
        self._events = events
        self._sending = asyncio.Lock()
        self._is_idle = True
        self._is_stalled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the end."""
        work = [
            asyncio.create_task(self._send_events(send), name="stream events"),
            asyncio.create_task(self._stay_alive(send), name="stream keepalive"),
            asyncio.create_task(self._watch(send), name="stream end of server"),
            asyncio.create_task(_gone(receive), name="stream end of client"),
        ]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send(send, f"retry: {RECONNECT_MILLISECONDS}\n\n")
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            is_heard = not (work[-1].done() or self._is_stalled)
        finally:
            await self._end(work)
        if is_heard:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(self, send: Send) -> None:
        try:
            with contextlib.suppress(StopAsyncIteration):
                await self._send(send, frame(await self._first))
            async for event in self._events:
                await self._send(send, frame(event))
        except (ValueError, ServiceUnavailableError) as error:
            logger.warning("A stream ended early: %s", error)
            await self._send(send, _problem(error))

    async def _stay_alive(self, send: Send) -> None:
        """Show that the stream lives while there is nothing to tell; end it if its key was revoked."""
        while True:
            self._is_idle = True
            await asyncio.sleep(self._services.settings.stream_keepalive_seconds)
            if not await self._may_go_on():
                await self._send(send, ": the key was revoked\n\n")
                return
            if self._is_idle:
                await self._send(send, ": keepalive\n\n")

    async def _may_go_on(self) -> bool:
        key_id = self._caller.key_id
        if key_id is None:
            return True
        try:
            return await self._services.journal.call(lambda journal: is_live(journal, key_id))
        except ServiceUnavailableError:
            return True  # an outage of the database ends no stream

    async def _watch(self, send: Send) -> None:
        await self._services.closing.wait()
        await self._send(send, ": the server ends; connect again, with Last-Event-ID\n\n")

    async def _send(self, send: Send, text: str) -> None:
        """Send a piece, and wait until the client has room for it.

        Raises:
            TimeoutError: It reads nothing.
        """
        self._is_idle = False
        async with self._sending:
            try:
                async with asyncio.timeout(self._services.settings.stream_stall_seconds):
                    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
            except TimeoutError:
                self._is_stalled = True
                raise

    async def _end(self, work: list[asyncio.Task[None]]) -> None:
        self._first.cancel()
        for task in work:
            task.cancel()
        ended = await asyncio.gather(*work, self._first, return_exceptions=True)
        if (close := getattr(self._events, "aclose", None)) is not None:
            await close()
        for outcome in ended:
            if isinstance(outcome, Exception) and not isinstance(outcome, StopAsyncIteration | OSError):
                logger.error("A stream failed", exc_info=outcome)


def frame(event: StreamEvent) -> str:
    """Return an event as a server-sent one."""
    kind = _LINE_ENDS.sub(" ", event.event_type or "message")
    return f"id: {event.id}\nevent: {kind}\ndata: {serialization.dumps(event)}\n\n"


def _problem(error: Exception) -> str:
    status = 503 if isinstance(error, ServiceUnavailableError) else 400
    message = UNAVAILABLE if status == 503 else str(error)
    return f"event: error\ndata: {json.dumps({'error': message, 'error_type': TYPES[status]})}\n\n"


async def _gone(receive: Receive) -> None:
    """Return when the client has left."""
    message: Message = {}
    while message.get("type") != "http.disconnect":
        message = await receive()
