"""The clock of a worker: what time it is, and what is to be done later. That of a test may be moved."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol


class Later(Protocol):
    """Something that is to be done later."""

    def cancel(self) -> None:
        """Do it never; harmless when it is done."""


class Clock(Protocol):
    """What the engine asks for the time. Durations are seconds."""

    def time(self) -> float:
        """Return the seconds since the epoch."""

    def monotonic(self) -> float:
        """Return seconds that never go back, since some moment."""

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Later:
        """Call `callback` on the running loop in so many seconds."""

    async def sleep(self, seconds: float) -> None:
        """Return in so many seconds."""


class SystemClock:
    """The clock of the machine and of the running loop."""

    def time(self) -> float:
        """Return the seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back, since some moment."""
        return time.monotonic()

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Later:
        """Call `callback` on the running loop in so many seconds."""
        return asyncio.get_running_loop().call_later(seconds, callback, *args)

    async def sleep(self, seconds: float) -> None:
        """Return in so many seconds."""
        await asyncio.sleep(seconds)


SYSTEM_CLOCK: Clock = SystemClock()
