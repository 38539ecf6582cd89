"""Cuts the bytes of a stream into events: server-sent events, or JSON line by line."""

from __future__ import annotations


class EventCutter:
    """Gives out the JSON text of each event as soon as its last byte is there."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, received: bytes) -> list[bytes]:
        """Return the events that `received` completes."""
        lines = (self._rest + received).split(b"\n")
        self._rest = lines.pop()
        return [event for line in lines if (event := self._event(line.rstrip(b"\r"))) is not None]

    def end(self) -> list[bytes]:
        """Return the event a stream ended with that lacks its empty line, if there is one."""
        return self.feed(b"\n\n")

    def _event(self, line: bytes) -> bytes | None:
        if line.startswith(b"data:"):
            self._data.append(line[5:].strip())
        elif line.startswith(b"{"):  # JSON lines; also how some servers report an error in mid-stream
            return line
        elif not line and self._data:
            event = b"\n".join(self._data)
            self._data.clear()
            return event
        return None  # comments, and names that the JSON repeats
