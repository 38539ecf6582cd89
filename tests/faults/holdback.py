"""A proxy in front of a Redis broker: doorbells and nudges are held back, and come late, in another order."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import redis
from daemons import free_port

HELD = b"held-back"  # a list on the server: it answers a push with a number, as it answers what is held back
HELD_BACK = {b"LPUSH": b"polos", b"PUBLISH": b"polos:"}  # what Celery and we tell, and of which names
LOOK_AGAIN_SECONDS = 0.01
START_SECONDS = 10.0
Command = list[bytes]


@dataclass(frozen=True)
class _Held:
    """A command that somebody takes for done."""

    due: float
    since: float
    command: Command


class Holdback:
    """Has the server keep what is told in a list, takes it from there, and tells it later.

    Attributes:
        late_seconds: At most so much later.
        port: Where clients and workers find it.
        told: How many messages came late, `overtaken` how many after one that was sent later.
    """

    def __init__(self, *, seed: int) -> None:
        self.port = free_port()
        self.late_seconds = 0.0
        self.told = self.overtaken = 0
        self.longest_seconds = 0.0
        self._server_port = 0
        self._random = random.Random(seed)
        self._held: list[_Held] = []
        self._newest_told = 0.0
        self._is_shut = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def open(self, server_port: int) -> None:
        """Stand in front of the server at that port, from the first connection on."""
        self._server_port = server_port
        is_there = threading.Event()
        between = threading.Thread(target=lambda: asyncio.run(self._stand_between(is_there)), daemon=True)
        teller = threading.Thread(target=self._tell, daemon=True)
        self._threads = [between, teller]
        for thread in self._threads:
            thread.start()
        assert is_there.wait(START_SECONDS), f"nobody listens at {self.port}"

    @property
    def held(self) -> int:
        """How many messages are held back."""
        return len(self._held)

    def shut(self) -> None:
        """Let nothing through."""
        with self._lock:
            self._is_shut = True

    def release(self) -> None:
        """Let all go that is held back, the newest first."""
        with self._lock:
            self._is_shut = False
            self._held = [_Held(-held.since, held.since, held.command) for held in self._held]

    def end(self) -> None:
        """Stop; what is held back is lost."""
        self._ended.set()
        for thread in self._threads:
            thread.join(START_SECONDS)

    # -- what is told later

    def _tell(self) -> None:
        with redis.Redis(port=self._server_port) as server, suppress(redis.ConnectionError):  # until it ends
            while not self._ended.wait(LOOK_AGAIN_SECONDS):
                while (frame := server.rpop(HELD.decode())) is not None:
                    self._hold(_opened(frame))  # type: ignore[arg-type]  # of this form: bytes
                for held in self._due():
                    server.execute_command(*held.command)
                    self._count(held)

    def _hold(self, command: Command) -> None:
        with self._lock:
            now = time.monotonic()
            due = now + self._random.uniform(0.0, self.late_seconds)
            self._held.append(_Held(due, now, command))

    def _due(self) -> list[_Held]:
        with self._lock:
            if self._is_shut:
                return []
            now = time.monotonic()
            due = sorted((held for held in self._held if held.due <= now), key=lambda held: held.due)
            self._held = [held for held in self._held if held.due > now]
        return due

    def _count(self, held: _Held) -> None:
        self.told += 1
        self.overtaken += held.since < self._newest_told
        self._newest_told = max(self._newest_told, held.since)
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - held.since)

    # -- between clients and server

    async def _stand_between(self, is_there: threading.Event) -> None:
        async with await asyncio.start_server(self._serve, "127.0.0.1", self.port):
            is_there.set()
            while not self._ended.is_set():
                await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _serve(self, asks: asyncio.StreamReader, hears: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            answers, server = await asyncio.open_connection("127.0.0.1", self._server_port)
            ways = [asyncio.create_task(way) for way in (_forward(asks, server), _hand_back(answers, hears))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            server.close()
        hears.close()


async def _forward(asks: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
    """Hand commands on; in place of what is held back, the order to keep it."""
    while (command := await _next_command(asks)) is not None:
        name = HELD_BACK.get(command[0].upper())
        if name is not None and command[1].startswith(name):
            command = [b"LPUSH", HELD, _framed(command)]
        server.write(_framed(command))
        await server.drain()


async def _hand_back(answers: asyncio.StreamReader, hears: asyncio.StreamWriter) -> None:
    while part := await answers.read(1 << 16):
        hears.write(part)
        await hears.drain()


async def _next_command(asks: asyncio.StreamReader) -> Command | None:
    head = await asks.readline()
    if not head:
        return None
    return [await _next_word(asks) for _ in range(int(head[1:]))]


async def _next_word(asks: asyncio.StreamReader) -> bytes:
    length = int((await asks.readline())[1:])
    return (await asks.readexactly(length + 2))[:-2]


def _framed(command: Command) -> bytes:
    words = [b"$%d\r\n%b\r\n" % (len(word), word) for word in command]
    return b"".join([b"*%d\r\n" % len(command), *words])


def _opened(frame: bytes) -> Command:
    """Return the command that was framed."""
    _, _, rest = frame.partition(b"\r\n")
    command = []
    while rest:
        length, _, rest = rest.partition(b"\r\n")
        command.append(rest[: int(length[1:])])
        rest = rest[int(length[1:]) + 2 :]
    return command


@contextmanager
def holdback(*, seed: int) -> Iterator[Holdback]:
    """Have one, to be opened, while the context lasts."""
    made = Holdback(seed=seed)
    try:
        yield made
    finally:
        made.end()
