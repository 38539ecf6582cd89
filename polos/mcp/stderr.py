"""What a server's program writes for people: logged, and its last lines kept for messages."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from typing import Any, TextIO

from polos.mcp.endpoint import Endpoint

logger = logging.getLogger("polos.mcp")

KEPT_LINES = 5
KEPT_CHARACTERS = 300  # of a line
READ_BYTES = 1 << 14


class StderrTail:
    """A pipe for the standard error of a program; `file` is its end for the program."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._transport: asyncio.ReadTransport | None = None
        self.file: TextIO

    @property
    def text(self) -> str:
        """The last lines, without the secrets of the server."""
        return self._endpoint.hidden("\n".join(self._lines))

    async def __aenter__(self) -> StderrTail:
        reading, writing = os.pipe()
        self.file = os.fdopen(writing, "w")
        loop = asyncio.get_running_loop()
        source = os.fdopen(reading, "rb", buffering=0)
        self._transport, _ = await loop.connect_read_pipe(lambda: _Lines(self._add), source)
        return self

    async def __aexit__(self, *error: Any) -> None:
        self.file.close()
        if self._transport is not None:
            self._transport.close()

    def _add(self, line: str) -> None:
        self._lines.append(line[:KEPT_CHARACTERS])
        logger.debug("MCP server %r: %s", self._endpoint.name, self._endpoint.hidden(line))


class _Lines(asyncio.Protocol):
    """Gives each line of what comes; a longer one than is kept in pieces."""

    def __init__(self, add: Any) -> None:
        self._add = add
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > READ_BYTES:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            if line.strip():
                self._add(line.decode("utf-8", "replace").rstrip())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rest.strip():
            self._add(self._rest.decode("utf-8", "replace").rstrip())
