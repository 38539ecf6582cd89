"""The sessions of one worker process with MCP servers: opened when needed, shared, closed when idle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from polos.engine.tasks import start_apart
from polos.errors import ToolServerError
from polos.mcp.connection import Connection, RemoteTool
from polos.mcp.endpoint import Server
from polos.mcp.failures import SessionLostError
from polos.settings import Settings

FIRST_PAUSE_SECONDS = 1.0  # after a server that could not be started; doubles with each failure


class Connections:
    """What one loop holds open. `close` ends everything."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held: dict[Server, _Held] = {}
        self._is_closed = False

    async def call(self, server: Server, name: str, arguments: dict[str, Any], meta: dict[str, Any]) -> Any:
        """Return the server's `CallToolResult`.

        Raises:
            ToolServerError: It cannot be reached, refuses, ends or does not answer in time.
        """
        held = self._of(server)
        try:
            return await held.call(name, arguments, meta)
        except SessionLostError:  # refused before it had any effect
            return await held.call(name, arguments, meta)

    async def tools(self, server: Server) -> list[RemoteTool]:
        """Return what the server offers, as it said not longer ago than POLOS_MCP_LIST_SECONDS.

        Raises:
            ToolServerError: As `call`.
        """
        return await self._of(server).tools()

    def hidden(self, server: Server, text: str) -> str:
        """Return a text of the server without its secrets."""
        return self._of(server).hidden(text)

    async def close(self) -> None:
        """End all sessions, and the programs that belong to them."""
        self._is_closed = True
        held, self._held = self._held, {}
        await asyncio.gather(*(each.close() for each in held.values()))

    def _of(self, server: Server) -> _Held:
        if self._is_closed:
            raise ToolServerError(f"MCP server {server.name!r}: this worker is ending", retryable=True)
        if server not in self._held:
            self._held[server] = _Held(server, self._settings)
        return self._held[server]


class _Held:
    """The session with one server, while there is one; what went wrong with the last."""

    def __init__(self, server: Server, settings: Settings) -> None:
        self._server = server
        self._settings = settings
        self._connection: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._users = 0
        self._idle: asyncio.TimerHandle | None = None
        self._failures = 0
        self._not_before = 0.0
        self._problem = ""
        self._listed_at: float | None = None
        self._listing: asyncio.Task[list[RemoteTool]] | None = None
        self._closing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def using(self) -> AsyncIterator[Connection]:
        """Give the session, opened if there is none; it is not closed as idle meanwhile."""
        self._users += 1
        self._stay()
        try:
            yield await self._open()
        finally:
            self._users -= 1
            if not self._users:
                self._wait_idle()

    async def call(self, name: str, arguments: dict[str, Any], meta: dict[str, Any]) -> Any:
        """Make one request."""
        seconds = self._server.timeout_seconds or self._settings.mcp_timeout_seconds
        async with self.using() as connection:
            return await connection.call(name, arguments, meta, timeout_seconds=seconds)

    async def tools(self) -> list[RemoteTool]:
        """Return what the server offers, asking again when that is too long ago."""
        async with self.using() as connection:
            if not self._is_listed():
                await self._list_once(connection)
            return connection.tools

    def hidden(self, text: str) -> str:
        """Return `text` without the secrets of the server."""
        return text if self._connection is None else self._connection.endpoint.hidden(text)

    async def close(self) -> None:
        """End the session, and any that is being opened."""
        self._stay()
        if self._opening is not None:
            await asyncio.wait({self._opening})
        if self._connection is not None:
            await self._connection.close()

    # -- the session

    async def _open(self) -> Connection:
        if self._connection is not None and self._connection.is_open:
            return self._connection
        if self._opening is None:
            self._refuse_too_soon()
            self._opening = start_apart(self._opened(), name=f"mcp open {self._server.name}")
        # Others may wait for it too: the one who asked first may go.
        return await asyncio.shield(self._opening)

    async def _opened(self) -> Connection:
        try:
            connection = Connection(
                self._server.endpoint(),
                connect_seconds=self._settings.mcp_connect_seconds,
                on_tools_changed=self._forget_list,
            )
            await connection.open()
        except ToolServerError as error:
            self._count_failure(error)
            raise
        finally:
            self._opening = None
        self._failures = 0
        self._connection = connection
        self._listed_at = _now()
        return connection

    def _refuse_too_soon(self) -> None:
        """Raise while the server is given time: what waits here would hold a slot.

        Raises:
            ToolServerError: It failed a moment ago; the message says why, and when it is tried again.
        """
        if (wait := self._not_before - _now()) > 0:
            raise ToolServerError(f"{self._problem} (tried again in {wait:.0f} s)", retryable=True)

    def _count_failure(self, error: ToolServerError) -> None:
        pause = min(
            FIRST_PAUSE_SECONDS * 2 ** min(self._failures, 32), self._settings.mcp_restart_max_seconds
        )
        self._failures += 1
        self._not_before = _now() + pause
        self._problem = str(error)

    # -- its list of tools

    def _is_listed(self) -> bool:
        return self._listed_at is not None and _now() - self._listed_at < self._settings.mcp_list_seconds

    def _forget_list(self) -> None:
        self._listed_at = None

    async def _list_once(self, connection: Connection) -> None:
        if self._listing is None:
            self._listing = start_apart(self._list(connection))
        await asyncio.shield(self._listing)

    async def _list(self, connection: Connection) -> list[RemoteTool]:
        try:
            tools = await connection.list_again(timeout_seconds=self._settings.mcp_connect_seconds)
        finally:
            self._listing = None
        self._listed_at = _now()
        return tools

    # -- idleness

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _wait_idle(self) -> None:
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(self._settings.mcp_idle_seconds, self._close_idle)

    def _close_idle(self) -> None:
        connection, self._connection, self._idle = self._connection, None, None
        if connection is not None:
            self._closing = start_apart(connection.close())  # a task nobody holds may vanish


def _now() -> float:
    return asyncio.get_running_loop().time()
