"""Server-sent events, as the HTML standard has them read."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass
class Frame:
    """One frame, complete. What it does not have is None."""

    id: str | None = None
    event: str = "message"
    data: str | None = None
    retry_seconds: float | None = None

    def add(self, line: str) -> None:
        """Take in one line; unknown fields and comments say nothing."""
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self.data = value if self.data is None else f"{self.data}\n{value}"
            case "id" if "\0" not in value:
                self.id = value
            case "event":
                self.event = value or "message"
            case "retry" if value.isascii() and value.isdigit():
                self.retry_seconds = int(value) / 1000


async def frames(chunks: AsyncIterable[bytes]) -> AsyncIterator[Frame]:
    """Yield the frames of a stream of bytes, also those without data; one that is cut off is none."""
    frame, is_empty = Frame(), True
    async for line in _lines(chunks):
        if line:
            frame.add(line)
            is_empty = False
        elif not is_empty:
            yield frame
            frame, is_empty = Frame(), True


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[str]:
    """Yield complete lines, without their ends."""
    rest, is_first = b"", True
    async for chunk in chunks:
        rest += chunk
        held = rest.endswith(b"\r")  # the other half of its end may come
        *lines, rest = _LINE_END.split(rest[:-1] if held else rest)
        if held:
            rest += b"\r"
        for line in lines:
            text = line.decode(errors="replace")
            yield text.removeprefix("\ufeff") if is_first else text
            is_first = False
