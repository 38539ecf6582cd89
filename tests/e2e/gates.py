"""A gate between a test and the code of a run, which is on another loop in another thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


async def until(condition: Callable[[], object], *, seconds: float = 15) -> None:
    """Return once the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


class Gate:
    """Code of a run calls `passed`, the test `reached` and `open`."""

    def __init__(self) -> None:
        self._arrived = threading.Event()
        self._open = threading.Event()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def open(self) -> None:
        self._open.set()

    async def reached(self) -> None:
        await until(self._arrived.is_set)

    async def passed(self) -> None:
        self._arrived.set()
        await until(self._open.is_set)

    def passed_in_thread(self) -> None:
        self._arrived.set()
        assert self._open.wait(15)
