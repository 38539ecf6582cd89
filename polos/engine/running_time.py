"""How long a run has been running in this attempt: time in which it only waits for others does not count."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from polos.clock import SYSTEM_CLOCK, Clock, Later
from polos.errors import RunTimeoutError


class RunningTime:
    """The running time of one attempt, and what is left of the run's limit.

    Args:
        limit_seconds: Of the run, over all attempts; None for no limit.
        earlier_seconds: Used up by earlier attempts.
        clock: Of the worker.
    """

    def __init__(
        self, limit_seconds: float | None, earlier_seconds: float, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._limit = limit_seconds
        self._earlier = earlier_seconds
        self._spent = 0.0
        self._clock = clock
        self._since: float | None = clock.monotonic()
        self._alarm: asyncio.Timeout | None = None
        self._end: Later | None = None

    @property
    def spent_seconds(self) -> float:
        """Running time of this attempt so far."""
        return self._spent + (0.0 if self._since is None else self._clock.monotonic() - self._since)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let no time count inside the block."""
        self._spent, self._since = self.spent_seconds, None
        self._set_alarm()
        try:
            yield
        finally:
            self._since = self._clock.monotonic()
            self._set_alarm()

    @contextmanager
    def limited(self, alarm: asyncio.Timeout) -> Iterator[None]:
        """Let `alarm`, an `asyncio.timeout` that was entered, go off when the limit is reached."""
        self._alarm = alarm
        self._set_alarm()
        try:
            yield
        finally:
            self._alarm = None
            self._forget_end()

    def used_up(self) -> RunTimeoutError:
        """Return the error of a run whose time is used up."""
        return RunTimeoutError(f"Run timed out after {self._limit or 0.0:g} seconds of running")

    def _set_alarm(self) -> None:
        self._forget_end()
        if self._alarm is None or self._limit is None or self._since is None or self._alarm.expired():
            return
        left = max(self._limit - self._earlier - self.spent_seconds, 0.0)
        self._end = self._clock.call_later(left, self._go_off)

    def _go_off(self) -> None:
        if self._alarm is not None:
            self._alarm.reschedule(asyncio.get_running_loop().time())

    def _forget_end(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            end.cancel()
