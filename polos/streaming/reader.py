"""Following a run tree: live from Redis, whatever that has lost from the journal, each event once."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

from polos.errors import ServiceUnavailableError
from polos.event_data import ends_run
from polos.streaming.bus import Bus
from polos.streaming.cursor import Cursor, Position
from polos.streaming.feed import WATCHERS, Entry, entry_from, stream_of
from polos.streaming.progress import Hole, Progress, Told

logger = logging.getLogger("polos.streams")

SILENCE_SECONDS = 2.0  # without a word: then the journal is asked whether there is something
HOLE_SECONDS = 0.1  # an event whose predecessor was not heard waits for it; then the journal is asked
SUBSCRIBE_SECONDS = 2.0  # to wait for Redis before going on without it
WATCH_AGAIN_SECONDS = 20.0
MAX_WAITING_ENTRIES = 2000  # of a reader that is slower than its run; it reads the rest when it comes to it
PAGE = 1000
ENDS = "run:{}"


@dataclass(frozen=True)
class Head:
    """How far a tree is: the number of its last event, the time, whether the followed run has ended."""

    number: int
    seconds: float
    ended_event: int | None


class History(Protocol):
    """What the journal knows of a tree."""

    async def head(self) -> Head:
        """Return how far the tree is now."""

    async def since(self, number: int, *, after: Position | None = None) -> Sequence[Entry]:
        """Return the numbered events after `number`, and those without number after a position if given."""

    async def pending(self) -> Sequence[Entry]:
        """Return the events that ask for an answer nobody has given yet."""


class _Inbox:
    """What a reader has heard and not read; bounded."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._news = asyncio.Event()
        self.has_missed = False  # something was not heard, or there was too much of it
        self.is_woken = False
        self.is_heard = asyncio.Event()

    def put(self, message: str) -> None:
        """Take a message of the tree's channel."""
        if len(self._entries) >= MAX_WAITING_ENTRIES:
            self._entries.clear()
            self.has_missed = True
        self._entries.extend(_entries(message))
        self._news.set()

    def subscribed(self) -> None:
        """Take note that messages are heard from here on; what was said before may have been missed."""
        self.has_missed = True
        self.is_heard.set()
        self._news.set()

    def wake(self, _: str = "") -> None:
        """Take note that the journal has something."""
        self.is_woken = True
        self._news.set()

    async def wait(self, seconds: float) -> bool:
        """Return whether there was anything within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def brings(self, number: int, *, seconds: float) -> bool:
        """Return whether the event of that number is heard within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while all(entry.number != number for entry in self._entries):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        finally:
            if self._entries or self.is_woken or self.has_missed:
                self._news.set()
        return True

    def take(self) -> list[Entry]:
        """Return what was heard, oldest first."""
        entries, self._entries = list(self._entries), deque()
        self._news.clear()
        return entries


class TreeReader:
    """One reader of one tree, until one of its runs ends.

    Args:
        bus: Of the running loop.
        run_id: The run whose end ends the reading.
        cursor: What the reader has got; None to begin now.
    """

    def __init__(
        self, bus: Bus, history: History, *, root_id: str, run_id: str, cursor: Cursor | None
    ) -> None:
        self._bus = bus
        self._history = history
        self._root_id = root_id
        self._run_id = run_id
        self._stream = stream_of(root_id)
        self._begins_now = cursor is None
        self._progress = Progress(cursor or Cursor())
        self._inbox = _Inbox()
        self._heard_until = cursor.position if cursor is not None else Position()
        self._watched_at = 0.0
        self._is_catching_up = False

    @property
    def number(self) -> int:
        """Number of the last numbered event the reader has."""
        return self._progress.number

    async def find_number(self) -> None:
        """Find the last numbered event up to the cursor's position, for a reader who knows only that."""
        position = self._progress.cursor.position
        kept = [entry async for page in self._kept("-") for entry in page]
        known = [entry for entry in kept if Position.parse(entry.position) <= position]
        if known and kept[0].number == 1:
            numbers = [entry.number for entry in known]
        else:
            entries = await self._history.since(0)
            numbers = [entry.number for entry in entries if int(entry.at * 1000) < position.milliseconds]
        self._progress.skip_to(max(numbers, default=0), position)

    async def events(self) -> AsyncIterator[Told]:
        """Return each event once, the last is the end of the run."""
        async with AsyncExitStack() as stack:
            inbox = self._inbox
            for listening in (
                self._bus.listening(self._stream, inbox.put, on_subscribed=inbox.subscribed),
                self._bus.listening(ENDS.format(self._run_id), inbox.wake),
            ):
                await stack.enter_async_context(listening)
            if await self._has_end():
                return
            await self._hear()
            async for told in self._all():
                is_end = ends_run(told.type, told.data, self._run_id)
                if is_end and self._is_catching_up and await self._was_retried(told.cursor.number):
                    continue
                yield told
                if is_end:
                    return

    async def _has_end(self) -> bool:
        """Whether the reader has been given the end of the run already."""
        if not self._progress.number:
            return False
        head = await self._history.head()
        return head.ended_event is not None and self._progress.number >= head.ended_event

    async def _was_retried(self, number: int) -> bool:
        """Whether an end that is still kept was taken back: the journal has another event in its place."""
        try:
            head = await self._history.head()
        except ServiceUnavailableError:
            return False
        return head.number > 0 and head.ended_event != number

    async def _hear(self) -> None:
        try:
            async with asyncio.timeout(SUBSCRIBE_SECONDS):
                await self._inbox.is_heard.wait()
        except TimeoutError:
            self._inbox.has_missed = True  # Redis is away: the journal has what counts
        self._watch()

    def _watch(self) -> None:
        """Say that this tree is read, so that workers tell what else they would keep to themselves."""
        now = asyncio.get_running_loop().time()
        if now - self._watched_at > WATCH_AGAIN_SECONDS or not self._watched_at:
            self._watched_at = now
            self._bus.publish(WATCHERS, self._root_id)

    async def _all(self) -> AsyncIterator[Told]:
        inbox = self._inbox
        if self._begins_now:
            inbox.has_missed = False
            for told in await self._from_now():
                yield told
        while True:
            if inbox.has_missed:
                inbox.has_missed = False
                self._watch()
                self._is_catching_up = True
                async for told in self._catch_up():
                    yield told
                self._is_catching_up = False
            heard = await inbox.wait(SILENCE_SECONDS)
            for told in await self._take_all(inbox.take()):
                yield told
            if inbox.is_woken or not heard:
                inbox.is_woken = False
                self._watch()
                for told in await self._missing():
                    yield told

    async def _from_now(self) -> list[Told]:
        """Begin now: with what still waits for an answer, or with the end of a run that has ended."""
        head = await self._history.head()
        last = await self._last_kept()
        position = Position.parse(last) if last else Position.at(head.seconds)
        number = head.number if head.ended_event is None else head.ended_event - 1
        self._progress.skip_to(number, position)
        self._progress.trusts_start = True
        pending = await self._history.pending()
        asked = [told for entry in pending for told in self._progress.tell_again(entry)]
        return [*asked, *(await self._missing() if head.ended_event is not None else [])]

    async def _last_kept(self) -> str | None:
        try:
            last = await self._bus.last_of_stream(self._stream)
        except ConnectionError:
            return None
        return last[0] if last else None

    async def _catch_up(self) -> AsyncIterator[Told]:
        """Read what was not heard: from the kept entries if they reach back to where the reader is."""
        began = self._progress.cursor
        after = await self._kept_from()
        self._progress.trusts_start = after not in {None, "-"}
        if after is None:
            for told in await self._read(began.number, after=began.position):
                yield told
        async for page in self._kept(after or "-"):
            fresh = [entry for entry in page if Position.parse(entry.position) > began.position]
            for told in await self._take_all(fresh):
                yield told

    async def _kept_from(self) -> str | None:
        """Return after which entry the kept ones have all the reader lacks, ``-`` for all, or None."""
        cursor = self._progress.cursor
        try:
            if cursor.position.milliseconds:
                position = str(cursor.position)
                return position if await self._bus.has_entry(self._stream, position) else None
            first = await self._bus.read_stream(self._stream, limit=1)
        except ConnectionError:
            return None
        return "-" if first and entry_from(first[0][1]).number == 1 and not cursor.number else None

    async def _kept(self, after: str) -> AsyncIterator[list[Entry]]:
        while True:
            try:
                page = await self._bus.read_stream(self._stream, after=after, limit=PAGE)
            except ConnectionError:
                return  # the journal has what counts
            yield [entry_from(line, position) for position, line in page]
            if len(page) < PAGE:
                return
            after = page[-1][0]

    async def _take_all(self, entries: Sequence[Entry]) -> list[Told]:
        """Give what entries have for the reader; those ahead of others wait a moment for them."""
        told, ahead = self._told(self._unheard(entries))
        large = any(entry.type is None for entry in ahead)  # to be read from the journal anyway
        if ahead and not large and await self._inbox.brings(self._progress.number + 1, seconds=HOLE_SECONDS):
            more, ahead = self._told([*self._unheard(self._inbox.take()), *ahead])
            told += more
        if ahead:
            told += [*await self._read(self._progress.number), *self._told(ahead)[0]]
        return told

    def _told(self, entries: Sequence[Entry]) -> tuple[list[Told], list[Entry]]:
        """Return what entries have for the reader, and those that come before others they must follow."""
        told: list[Told] = []
        rest = list(entries)
        while rest:
            ahead: list[Entry] = []
            for entry in rest:
                try:
                    told += self._progress.take(entry)
                except Hole:
                    ahead.append(entry)
            if len(ahead) == len(rest):
                break
            rest = ahead
        return told, rest

    def _unheard(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return those that were not read before, from what is kept."""
        fresh = []
        for entry in entries:
            position = Position.parse(entry.position) if entry.position else None
            if position is None or position > self._heard_until:
                fresh.append(entry)
                self._heard_until = position or self._heard_until
        return fresh

    async def _missing(self) -> list[Told]:
        """Return the numbered events that nobody told; none now, while the journal is away."""
        try:
            head = await self._history.head()
        except ServiceUnavailableError:
            return []  # asked again after the next silence
        return await self._read(self._progress.number) if head.number > self._progress.number else []

    async def _since(self, number: int, after: Position | None) -> Sequence[Entry]:
        """Read the journal, however long it is away: what it has must come before what is live."""
        while True:
            try:
                return await self._history.since(number, after=after)
            except ServiceUnavailableError as error:
                logger.warning("A reader of run %s waits for the journal: %s", self._run_id, error)
                await asyncio.sleep(SILENCE_SECONDS)

    async def _read(self, number: int, *, after: Position | None = None) -> list[Told]:
        found = await self._since(number, after)
        return [told for entry in found for told in self._progress.take(entry, from_journal=True)]


def _entries(message: str) -> Iterator[Entry]:
    """Return the entries of one message: ids and lines in turn."""
    parts = message.split("\n")
    for position, line in zip(parts[::2], parts[1::2], strict=True):
        yield entry_from(line, position)
