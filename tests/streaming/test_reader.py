"""A reader against a real Valkey, or a bus in memory, and a journal of the test's own, which may be away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from polos import event_data as events
from polos.clock import SYSTEM_CLOCK
from polos.errors import JournalUnavailableError
from polos.streaming import reader
from polos.streaming.bus import Bus
from polos.streaming.cursor import Cursor, Position
from polos.streaming.feed import Entry, Feed
from polos.streaming.in_memory import MemoryBus, MemoryServer
from polos.streaming.progress import Told
from polos.streaming.reader import Head, TreeReader

RUN = "5a0f6f6e-1111-4222-8333-444455556666"
WHERE = events.metadata(RUN, "speaker")
STARTED = events.run_started("agent", None, WHERE)
ENDED = events.run_ended("agent", "completed", WHERE, error=None, cancelled_by=None)


START = Cursor()


class Book:
    """A journal: what is written there, and whether it can be read."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.is_away = False
        self.asked = asyncio.Event()

    def write(self, event: tuple[str, dict[str, object]]) -> int:
        self.entries.append(Entry(*event, number=len(self.entries) + 1, at=1.0))
        return len(self.entries)

    async def head(self) -> Head:
        self._check()
        ended = next((entry.number for entry in self.entries if entry.type == "agent_finish"), None)
        return Head(len(self.entries), 1.0, ended)

    async def since(self, number: int, *, after: Position | None = None) -> Sequence[Entry]:
        self._check()
        return [entry for entry in self.entries if entry.number > number]

    async def pending(self) -> Sequence[Entry]:
        return []

    def _check(self) -> None:
        self.asked.set()
        if self.is_away:
            raise JournalUnavailableError("it is away")


@pytest_asyncio.fixture(params=["valkey", "memory"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    if request.param == "memory":
        made: Bus = MemoryBus(MemoryServer(SYSTEM_CLOCK))
    else:
        made = Bus(request.getfixturevalue("valkey_url"), prefix="reader:")
        await made._redis.flushall()
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "SILENCE_SECONDS", 0.1)


def reading(bus: Bus, book: Book, cursor: Cursor = START) -> AsyncIterator[Told]:
    return TreeReader(bus, book, root_id=RUN, run_id=RUN, cursor=cursor).events()


async def test_an_event_that_nobody_told_is_found_in_the_journal(bus: Bus) -> None:
    book = Book()
    book.write(STARTED)
    following = reading(bus, book)
    assert (await anext(following)).type == "agent_start"
    book.write(ENDED)  # by a worker that died before it told
    assert [told.type async for told in following] == ["agent_finish"]


async def test_a_reader_outlives_an_outage_of_the_journal(bus: Bus) -> None:
    book, feed = Book(), Feed(bus)
    book.write(STARTED)
    following = reading(bus, book)
    assert (await anext(following)).type == "agent_start"
    book.is_away = True
    waiting = asyncio.ensure_future(anext(following))
    for _ in range(3):  # silences
        book.asked.clear()
        await asyncio.wait_for(book.asked.wait(), 10)
    feed.live(RUN, events.step_started("charge", WHERE))
    assert (await waiting).type == "step_start", "what is told live still comes"
    number = book.write(("note", {}))
    book.write(ENDED)
    feed.numbered(RUN, number + 1, ENDED)  # before it, there is one that was not told
    waiting = asyncio.ensure_future(anext(following))
    book.asked.clear()
    await asyncio.wait_for(book.asked.wait(), 10)
    book.is_away = False
    assert (await waiting).type == "note"
    assert (await anext(following)).type == "agent_finish"
    feed.close()


async def test_without_redis_everything_comes_from_the_journal() -> None:
    away = Bus("redis://127.0.0.1:1", prefix="")
    book = Book()
    book.write(STARTED)
    following = reading(away, book)
    assert (await anext(following)).type == "agent_start"
    book.write(ENDED)
    assert [told.type async for told in following] == ["agent_finish"]
    await away.close()


async def test_an_event_told_by_another_process_may_come_late(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its successor waits a moment for it, so that what belongs between them is not put behind both."""
    monkeypatch.setattr(reader, "HOLE_SECONDS", 5.0)
    book, feed = Book(), Feed(bus)
    book.write(STARTED)
    following = reading(bus, book)
    assert (await anext(following)).type == "agent_start"
    second = book.write(("second", {}))
    third = book.write(("third", {}))
    feed.numbered(RUN, third, ("third", {}))
    feed.live(RUN, events.step_started("between", WHERE))
    feed.numbered(RUN, second, ("second", {}))
    assert [(await anext(following)).type for _ in range(3)] == ["step_start", "second", "third"]
    feed.close()
