"""The bus of a journal in memory: the promises of `Bus`, kept without a server."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from polos.allowances import Question
from polos.clock import Clock
from polos.streaming.allowances import AllowancesAwayError, Counted, SharedAllowances
from polos.streaming.bus import Append, Bus, Listener
from polos.streaming.cursor import Position


@dataclass
class _Stream:
    entries: deque[tuple[str, str]] = field(default_factory=deque)
    expires_at: float = 0.0


class MemoryServer:
    """What the buses of one process share. Any thread may call it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._streams: dict[str, _Stream] = {}
        self._buses: set[MemoryBus] = set()
        self._last = Position()

    def join(self, bus: MemoryBus) -> None:
        """Let a bus hear what is published."""
        with self._lock:
            self._buses.add(bus)

    def leave(self, bus: MemoryBus) -> None:
        """Let it hear no more."""
        with self._lock:
            self._buses.discard(bus)

    def publish(self, channel: str, message: str) -> None:
        """Hand a message to every listener of a channel, on the loop of each."""
        with self._lock:
            for bus in self._buses:
                bus.receive(channel, message)

    def append(self, entry: Append) -> bool:
        """Publish an entry of a stream; keep and return True as `Append` says."""
        with self._lock:
            stream = self._found(entry.stream)
            listening = any(bus.listens(entry.stream) for bus in self._buses)
            keeps = entry.keep or stream is not None or listening
            position = self._kept(entry, stream or _Stream()) if keeps else ""
            for bus in self._buses:
                bus.receive(entry.stream, f"{position}\n{entry.entry}")
        return keeps

    def entries(self, stream: str) -> list[tuple[str, str]]:
        """Return what is kept of a stream, oldest first."""
        with self._lock:
            found = self._found(stream)
            return list(found.entries) if found is not None else []

    def _found(self, name: str) -> _Stream | None:
        stream = self._streams.get(name)
        if stream is not None and stream.expires_at <= self._clock.monotonic():
            del self._streams[name]
            return None
        return stream

    def _kept(self, entry: Append, stream: _Stream) -> str:
        now = Position(int(self._clock.time() * 1000))
        last = self._last
        self._last = now if now > last else Position(last.milliseconds, last.n + 1)
        stream.entries.append((str(self._last), entry.entry))
        while len(stream.entries) > entry.most:
            stream.entries.popleft()
        stream.expires_at = self._clock.monotonic() + entry.keep_seconds
        self._streams[entry.stream] = stream
        return str(self._last)


class MemoryBus(Bus):
    """Publish and listen on the running loop."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._heard: dict[str, set[Listener]] = {}
        self.dropped = 0
        server.join(self)

    def publish(self, channel: str, message: str) -> None:
        """Send at once."""
        self._server.publish(channel, message)

    def append(self, entry: Append) -> None:
        """Append to a stream and tell it."""
        entry.told(self._server.append(entry))

    async def read_stream(self, stream: str, *, after: str = "-", limit: int = 1000) -> list[tuple[str, str]]:
        """Return up to `limit` kept entries (id, entry) of a stream, after the id `after`, oldest first."""
        start = Position() if after == "-" else Position.parse(after)
        kept = self._server.entries(stream)
        return [entry for entry in kept if Position.parse(entry[0]) > start][:limit]

    async def last_of_stream(self, stream: str) -> tuple[str, str] | None:
        """Return the newest kept entry (id, entry) of a stream."""
        kept = self._server.entries(stream)
        return kept[-1] if kept else None

    async def has_entry(self, stream: str, entry_id: str) -> bool:
        """Whether a stream still has the entry of that id."""
        return any(position == entry_id for position, _ in self._server.entries(stream))

    @asynccontextmanager
    async def listening(
        self, channel: str, listener: Listener, *, on_subscribed: Callable[[], None] | None = None
    ) -> AsyncIterator[None]:
        """Call `listener` with each message of `channel` while the context lasts; it is heard at once."""
        self.listen(channel, listener)
        if on_subscribed is not None:
            on_subscribed()
        try:
            yield
        finally:
            self.forget(channel, listener)

    def listen(self, channel: str, listener: Listener) -> None:
        """Call `listener` with each message of `channel` from now on."""
        self._heard.setdefault(channel, set()).add(listener)

    def forget(self, channel: str, listener: Listener) -> None:
        """Stop calling `listener`."""
        self._heard[channel].discard(listener)
        if not self._heard[channel]:
            del self._heard[channel]

    async def close(self) -> None:
        """Hear no more."""
        self._server.leave(self)

    # -- what the server calls, on any thread

    def listens(self, channel: str) -> bool:
        """Whether anybody listens to a channel here."""
        return channel in self._heard

    def receive(self, channel: str, message: str) -> None:
        """Hand a message over to this bus's loop."""
        if channel in self._heard and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._call, channel, message)

    def _call(self, channel: str, message: str) -> None:
        for listener in tuple(self._heard.get(channel, ())):
            listener(message)


class NoSharedAllowances(SharedAllowances):
    """Allowances of models where there is no Redis: those of the journal count."""

    def __init__(self) -> None:
        """Need nothing."""

    async def ask(self, name: str, question: Question, *, was_away: bool = False) -> Counted:
        """Say that there is nobody to ask."""
        raise AllowancesAwayError("a runtime in memory has no Redis")

    async def pause(self, name: str, seconds: float) -> None:
        """Say that there is nobody to tell."""
        raise AllowancesAwayError("a runtime in memory has no Redis")

    async def correct(self, name: str, seconds: float) -> None:
        """Say that there is nobody to tell."""
        raise AllowancesAwayError("a runtime in memory has no Redis")

    async def close(self) -> None:
        """Do nothing."""
