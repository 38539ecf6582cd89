"""One pub/sub connection per process: publishing to channels, appending to streams, listeners on both."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from polos.encryption import PLAIN, PREFIX, Codec
from polos.errors import EncryptionError
from polos.streaming.server import RedisServer, close_client

logger = logging.getLogger("polos.bus")

RECONNECT_SECONDS = (0.1, 2.0)  # first and longest pause
SOCKET_TIMEOUT_SECONDS = 5.0
CANCEL_AGAIN_SECONDS = 0.1
IDLE_CHANNEL = "idle"
IDLE_SECONDS = 10.0  # without a message: then the connection is pinged
MAX_READS_AT_ONCE = 8  # each takes a connection; hundreds of readers may begin in one moment
MAX_WAITING_MESSAGES = 10_000  # while Redis is away; more are dropped, nothing rests on them
_ERRORS = (RedisError, OSError, asyncio.TimeoutError)
Listener = Callable[[str], None]

# Publishes the entries of a stream in one message. Keeps them if that is wanted, if some are kept already, or
# if anybody listens, who may want them again. Answers whether they were kept.
# KEYS: stream. ARGV: channel, whether to keep, most entries, milliseconds to keep them, entries.
_APPEND = """
local keep = ARGV[2] == '1' or redis.call('EXISTS', KEYS[1]) == 1
if not keep then keep = redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2] > 0 end
local told = {}
for i = 5, #ARGV do
  told[#told + 1] = keep and redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'e', ARGV[i]) or ''
  told[#told + 1] = ARGV[i]
end
if keep then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
redis.call('PUBLISH', ARGV[1], table.concat(told, '\\n'))
return keep and 1 or 0
"""


@dataclass(frozen=True)
class Append:
    """An entry for a capped, expiring stream, told on a channel of the same name.

    Attributes:
        entry: One line of text.
        keep: Whether to keep it although nobody listens.
        told: Called with whether it was kept.
    """

    stream: str
    entry: str
    keep: bool
    most: int
    keep_seconds: float
    told: Callable[[bool], None]


Report = Callable[[BaseException | None], None]


class Bus:
    """Publish and listen on the running loop. Redis being away costs latency: messages are dropped.

    Args:
        server: The Redis or Valkey, or its URL.
        prefix: Before every channel name.
        report: Told of each attempt that failed, and by None of what succeeded after one.
        codec: How entries of streams are sent and kept, which hold texts. Other messages are ids.
    """

    def __init__(
        self,
        server: RedisServer | str,
        *,
        prefix: str,
        report: Report = lambda error: None,
        codec: Codec = PLAIN,
    ) -> None:
        self._prefix = prefix
        self._report = report
        self._codec = codec
        self._redis = (RedisServer.from_url(server) if isinstance(server, str) else server).client(
            socket_timeout=SOCKET_TIMEOUT_SECONDS,
            socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
            health_check_interval=IDLE_SECONDS,
            decode_responses=True,
        )
        self._listeners: dict[str, set[Listener]] = {}
        self._on_subscribed: dict[str, set[Callable[[], None]]] = {}
        self._subscribed: set[str] = set()  # as the server has confirmed
        self._outbox: list[tuple[str, str] | Append] = []
        self._changed = asyncio.Event()
        self._reading = asyncio.Semaphore(MAX_READS_AT_ONCE)
        self._reader: asyncio.Task[None] | None = None
        self._flusher: asyncio.Task[None] | None = None
        self._reachable = True
        self.dropped = 0  # messages that could not be sent

    def publish(self, channel: str, message: str) -> None:
        """Send soon; all messages of one loop turn leave in one round trip."""
        self._post((self._prefix + channel, message))

    def append(self, entry: Append) -> None:
        """Append to a stream and tell it, soon; in order, all of one loop turn in one round trip."""
        self._post(entry)

    async def read_stream(self, stream: str, *, after: str = "-", limit: int = 1000) -> list[tuple[str, str]]:
        """Return up to `limit` kept entries (id, entry) of a stream, after the id `after`, oldest first.

        Raises:
            ConnectionError: Redis does not answer.
            EncryptionError: An entry is encrypted with a key that is not here.
        """
        start = after if after == "-" else f"({after}"
        return await self._entries("xrange", stream, start, "+", limit)

    async def last_of_stream(self, stream: str) -> tuple[str, str] | None:
        """Return the newest kept entry (id, entry) of a stream.

        Raises:
            ConnectionError: Redis does not answer.
        """
        found = await self._entries("xrevrange", stream, "+", "-", 1)
        return found[0] if found else None

    async def has_entry(self, stream: str, entry_id: str) -> bool:
        """Whether a stream still has the entry of that id.

        Raises:
            ConnectionError: Redis does not answer.
        """
        return bool(await self._entries("xrange", stream, entry_id, entry_id, 1))

    async def _entries(
        self, command: str, stream: str, start: str, end: str, limit: int
    ) -> list[tuple[str, str]]:
        read = getattr(self._redis, command)
        try:
            async with self._reading:
                found = await read(self._prefix + stream, start, end, count=limit)
        except _ERRORS as error:
            self._away(error)
            raise ConnectionError(str(error)) from error
        self._answered()
        return [(entry_id, self._codec.open(fields["e"])) for entry_id, fields in found]

    def _post(self, message: tuple[str, str] | Append) -> None:
        if len(self._outbox) >= MAX_WAITING_MESSAGES:
            self.dropped += 1
            return
        self._outbox.append(message)
        if self._flusher is None or self._flusher.done():
            self._flusher = _own_task(self._flush())

    @asynccontextmanager
    async def listening(
        self, channel: str, listener: Listener, *, on_subscribed: Callable[[], None] | None = None
    ) -> AsyncIterator[None]:
        """Call `listener` with each message of `channel` while the context lasts.

        `on_subscribed` is called when the server knows of it, at first and after a reconnection: what was
        said before that was missed.
        """
        heeds = self._on_subscribed.setdefault(self._prefix + channel, set())
        self.listen(channel, listener)
        if on_subscribed is not None:
            heeds.add(on_subscribed)
            if self._prefix + channel in self._subscribed:
                on_subscribed()  # for another listener, earlier
        try:
            yield
        finally:
            self.forget(channel, listener)
            if on_subscribed is not None:
                heeds.discard(on_subscribed)
            if not heeds:
                self._on_subscribed.pop(self._prefix + channel, None)

    def listen(self, channel: str, listener: Listener) -> None:
        """Call `listener` with each message of `channel` from about now on."""
        self._listeners.setdefault(self._prefix + channel, set()).add(listener)
        self._changed.set()
        if self._reader is None:
            self._reader = _own_task(self._read_for_ever())

    def forget(self, channel: str, listener: Listener) -> None:
        """Stop calling `listener`."""
        name = self._prefix + channel
        self._listeners[name].discard(listener)
        if not self._listeners[name]:
            del self._listeners[name]
            self._changed.set()

    async def close(self) -> None:
        """Send what is waiting if Redis answers, then close the connections."""
        if self._flusher is not None:
            await asyncio.wait({self._flusher}, timeout=1.0)
        await _end(*(task for task in (self._reader, self._flusher) if task is not None))
        await close_client(self._redis)

    async def _flush(self) -> None:
        while self._outbox:
            batch, self._outbox = self._outbox, []
            try:
                await self._send(batch)
            except _ERRORS as error:
                self.dropped += len(batch)
                self._away(error)
            else:
                self._answered()

    async def _send(self, batch: Sequence[tuple[str, str] | Append]) -> None:
        try:
            await self._send_once(batch)
        except RedisConnectionError:  # it may have died idle; readers know what comes twice
            await self._send_once(batch)

    async def _send_once(self, batch: Sequence[tuple[str, str] | Append]) -> None:
        streams: dict[str, list[Append]] = {}
        async with self._redis.pipeline(transaction=False) as pipe:
            for message in batch:
                if isinstance(message, Append):
                    streams.setdefault(message.stream, []).append(message)
            for stream, entries in streams.items():
                self._append(pipe, self._prefix + stream, entries)
            for message in batch:
                if not isinstance(message, Append):
                    pipe.publish(*message)
            answers = await pipe.execute()
        for entries, kept in zip(streams.values(), answers, strict=False):
            for entry in entries:
                entry.told(bool(kept))

    def _append(self, pipe: Any, name: str, entries: Sequence[Append]) -> None:
        first = entries[0]
        keep = "1" if any(entry.keep for entry in entries) else "0"
        texts = [self._codec.seal(entry.entry) for entry in entries]
        pipe.eval(_APPEND, 1, name, name, keep, first.most, int(first.keep_seconds * 1000), *texts)

    def _away(self, error: BaseException) -> None:
        self._reachable = False
        self._report(error)

    def _answered(self) -> None:
        if not self._reachable:
            self._reachable = True
            self._report(None)

    async def _read_for_ever(self) -> None:
        pause, longest = RECONNECT_SECONDS
        while True:
            started = asyncio.get_running_loop().time()
            try:
                await self._read()
            except _ERRORS as error:
                self._away(error)
            except Exception:
                logger.exception("Reading from Redis failed; trying again")
            _leave_if_cancelled()
            lasted = asyncio.get_running_loop().time() - started
            pause = RECONNECT_SECONDS[0] if lasted > longest else min(pause * 2, longest)
            await asyncio.sleep(pause)

    async def _read(self) -> None:
        """Keep subscriptions equal to the listeners and hand out messages, until the connection breaks."""
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(self._prefix + IDLE_CHANNEL)  # reading needs a subscription at all times
            _heed_cancellation()
            self._subscribed.clear()
            work = {_own_task(self._subscribe(pubsub)), _own_task(self._hand_out(pubsub))}
            try:
                done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_EXCEPTION)
                for task in done:
                    task.result()
            finally:
                await _end(*work)

    async def _subscribe(self, pubsub: Any) -> None:
        subscribed: set[str] = set()
        while True:
            self._changed.clear()
            wanted = set(self._listeners)
            if new := wanted - subscribed:
                await pubsub.subscribe(*new)
            if old := subscribed - wanted:
                self._subscribed -= old
                await pubsub.unsubscribe(*old)
            subscribed = wanted
            _heed_cancellation()
            await self._changed.wait()

    async def _hand_out(self, pubsub: Any) -> None:
        while True:
            _heed_cancellation()
            self._deliver(await pubsub.get_message(timeout=IDLE_SECONDS))

    def _deliver(self, message: dict[str, Any] | None) -> None:
        self._answered()
        if message is None:
            return
        if message["type"] == "subscribe":
            if message["channel"] in self._listeners:
                self._subscribed.add(message["channel"])
            for heed in tuple(self._on_subscribed.get(message["channel"], ())):
                heed()
        elif message["type"] == "message" and (text := self._opened(message["data"])) is not None:
            for listener in tuple(self._listeners.get(message["channel"], ())):
                listener(text)

    def _opened(self, message: str) -> str | None:
        """Return a message with the entries in it opened; None is as if it had been lost on the way.

        Who waits for it reads the journal instead, which says what is wrong.
        """
        if PREFIX not in message:
            return message
        try:
            return "\n".join(self._codec.open(line) for line in message.split("\n"))
        except EncryptionError as error:
            logger.warning("A message on Redis was left out: %s", error)
            return None


def _own_task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start a task that belongs to no run, whoever caused it."""
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())


def _heed_cancellation() -> None:
    """Raise a cancellation that was swallowed: `asyncio.wait_for`, which redis-py uses, may before 3.12."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _leave_if_cancelled() -> None:
    """Raise again a cancellation that redis-py swallowed: asyncio.run() cancels only once and then waits."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _end(*tasks: asyncio.Task[None]) -> None:
    """Cancel until they end: redis-py swallows a cancellation now and then, in the middle of a read."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.debug("A task of the bus ended with %r", error)
