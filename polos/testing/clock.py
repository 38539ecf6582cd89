"""A clock that a test moves. Between moves it goes like the one on the wall."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from polos.clock import Later


class Timekeeper(Protocol):
    """The worker that lives by a clock."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Its event loop."""

    async def live_through(self, seconds: float) -> None:
        """Move the clock, and do all that comes due on the way."""


class ClockFuture(asyncio.Future[None]):
    """What waits for nothing but the clock."""


class MovableClock:
    """What time it is for a runtime in memory: its database, its worker and its scripted models.

    Args:
        start: The time at the beginning, by default that of the machine. Without time zone: UTC.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._began_ahead = 0.0 if start is None else _seconds(start) - time.time()
        self._moved = 0.0
        self._timers: set[_Timer] = set()
        self._keeper: Timekeeper | None = None

    # -- for tests

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return datetime.fromtimestamp(self.time(), UTC)

    async def advance(
        self,
        seconds: float = 0.0,
        *,
        minutes: float = 0.0,
        hours: float = 0.0,
        days: float = 0.0,
        weeks: float = 0.0,
    ) -> None:
        """Let the sum of the given times pass, as if it had been waited for.

        First everything goes on that can without time passing. Then time goes from one moment at which
        something is due to the next: timers, time limits, pauses before another try, delays, ticks of
        schedules. What each sets off goes on as far as it can before the next, and before this returns.

        Code that awaits something of its own, such as an HTTP server, is waited for a second at most: time
        goes on while it waits, as it does in life.

        Raises:
            ValueError: The sum is negative.
        """
        span = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
        await self._advance(span.total_seconds())

    async def advance_to(self, moment: datetime) -> None:
        """Let time pass until a moment; one without time zone is UTC.

        Raises:
            ValueError: The moment is past.
        """
        await self._advance(_seconds(moment) - self.time())

    @property
    def sync(self) -> SyncClock:
        """The same for tests that cannot await."""
        return SyncClock(self)

    async def _advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"A clock does not go back: {seconds:g} seconds cannot pass")
        keeper = self._keeper
        if keeper is None:
            self.move(seconds)
        elif keeper.loop is asyncio.get_running_loop():
            await keeper.live_through(seconds)
        else:
            passing = asyncio.run_coroutine_threadsafe(keeper.live_through(seconds), keeper.loop)
            await asyncio.wrap_future(passing)

    # -- for the runtime

    def time(self) -> float:
        """Return the seconds since the epoch."""
        return time.time() + self._began_ahead + self._moved

    def monotonic(self) -> float:
        """Return seconds that never go back, since some moment."""
        return time.monotonic() + self._moved  # never negative, wherever it began

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Later:
        """Call `callback` on the running loop in so many seconds."""
        timer = _Timer(self, self.monotonic() + seconds, callback, args)
        self._timers.add(timer)
        timer.wind()
        return timer

    async def sleep(self, seconds: float) -> None:
        """Return in so many seconds."""
        due = ClockFuture()
        timer = self.call_later(seconds, _be_done, due)
        try:
            await due
        finally:
            timer.cancel()

    def keep(self, keeper: Timekeeper | None) -> None:
        """Have time pass by way of a worker, or of nobody."""
        self._keeper = keeper

    def move(self, seconds: float) -> None:
        """Be ahead by so many seconds more. What is due is done soon, on its loop."""
        self._moved += seconds
        for timer in tuple(self._timers):
            timer.wind()

    def rests_seconds(self) -> float:
        """Return in how many seconds the next call is due; infinity if there is none."""
        first = min((timer.when for timer in self._timers), default=float("inf"))
        return first - self.monotonic()

    def forget(self, timer: _Timer) -> None:
        """Drop a timer that is done or cancelled."""
        self._timers.discard(timer)


class SyncClock:
    """A clock for tests that cannot await; each call returns when the time has passed."""

    def __init__(self, clock: MovableClock) -> None:
        self._clock = clock

    def advance(self, seconds: float = 0.0, **times: float) -> None:
        """See `MovableClock.advance`."""
        self._wait(self._clock.advance(seconds, **times))

    def advance_to(self, moment: datetime) -> None:
        """See `MovableClock.advance_to`."""
        self._wait(self._clock.advance_to(moment))

    def _wait(self, passing: Coroutine[Any, Any, None]) -> None:
        keeper = self._clock._keeper
        if keeper is None:
            asyncio.run(passing)
        elif keeper.loop is _running_loop():
            passing.close()
            raise RuntimeError("This would hold up the event loop that time passes on: await clock.advance()")
        else:
            asyncio.run_coroutine_threadsafe(passing, keeper.loop).result()


class _Timer:
    """One call that is due at a moment, however that comes about."""

    def __init__(
        self, clock: MovableClock, when: float, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        self.when = when
        self._clock = clock
        self._call = (callback, args)
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None

    def wind(self) -> None:
        """Wait for as long as is left."""
        if self._handle is not None:
            self._handle.cancel()
        left = max(self.when - self._clock.monotonic(), 0.0)
        self._handle = self._loop.call_later(left, self._go_off)

    def cancel(self) -> None:
        """Do it never."""
        if self._handle is not None:
            self._handle.cancel()
        self._clock.forget(self)

    def _go_off(self) -> None:
        self._clock.forget(self)
        callback, args = self._call
        callback(*args)


def _be_done(due: ClockFuture) -> None:
    if not due.done():
        due.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
