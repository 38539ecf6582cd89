"""Delivers every message of a Redis broker twice more, late and in any order."""

from __future__ import annotations

import ast
import heapq
import json
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import redis

COPIES = 2
LOOK_AGAIN_SECONDS = 0.01
_ARGUMENT = re.compile(rb'"(?:[^"\\]|\\.)*"')


class Echo:
    """Watches what is pushed to queues, and pushes copies from the other end, up to `late_seconds` later."""

    def __init__(self, port: int, *, late_seconds: float, seed: int) -> None:
        self._late_seconds = late_seconds
        self._random = random.Random(seed)
        self._client = redis.Redis(port=port)
        self._lock = threading.Lock()
        self._late: list[tuple[float, str, str]] = []
        self._ended = threading.Event()
        self.copied = 0
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(b"MONITOR\r\n")
        self._lines = self._socket.makefile("rb")
        assert self._lines.readline() == b"+OK\r\n"
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._watch, self._deliver)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many copies are still to be delivered."""
        return len(self._late)

    def end(self) -> None:
        self._ended.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._lines.close()
        self._socket.close()
        self._client.close()

    def _watch(self) -> None:
        for line in self._lines:
            if b'"LPUSH"' in line:  # what Celery does; the copies are pushed by RPUSH
                _, queue, message = (ast.literal_eval(text.decode()) for text in _ARGUMENT.findall(line)[:3])
                self._copy(queue, message)

    def _copy(self, queue: str, message: str) -> None:
        with self._lock:
            for _ in range(COPIES):
                due = time.monotonic() + self._random.uniform(0, self._late_seconds)
                heapq.heappush(self._late, (due, queue, _delivered_again(message)))

    def _deliver(self) -> None:
        while not self._ended.wait(LOOK_AGAIN_SECONDS):
            while (copy := self._next_due()) is not None:
                self._client.rpush(*copy)
                self.copied += 1

    def _next_due(self) -> tuple[str, str] | None:
        with self._lock:
            if not self._late or self._late[0][0] > time.monotonic():
                return None
            _, queue, message = heapq.heappop(self._late)
            return queue, message


def _delivered_again(text: str) -> str:
    """Return the message as a broker delivers it again: the same task, another delivery."""
    message = json.loads(text)
    message["properties"]["delivery_tag"] = str(uuid.uuid4())
    return json.dumps(message)


@contextmanager
def echoing(port: int, *, late_seconds: float, seed: int) -> Iterator[Echo]:
    """Deliver everything thrice while the context lasts."""
    echo = Echo(port, late_seconds=late_seconds, seed=seed)
    try:
        yield echo
    finally:
        echo.end()
