"""The slots of a worker process: how many bodies execute at once, and how a waiting one lends its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import AsyncIterator, Callable

_current: contextvars.ContextVar[Slot | None] = contextvars.ContextVar("polos_slot", default=None)


class Slots:
    """A fixed number of slots, handed to waiting tasks in order: those that resume before new ones.

    For the loop's thread only, except `free`, which any thread may read.

    Args:
        limit: How many there are.
        on_change: Called on the loop's thread when a slot has become free and nobody waited for it.
    """

    def __init__(self, limit: int, *, on_change: Callable[[], None] | None = None) -> None:
        if limit < 1:
            raise ValueError(
                f"a pool needs at least one slot, not {limit!r}: start the worker with -c 1 or more"
            )
        self.limit = limit
        self._free = limit
        self._on_change = on_change
        self._resuming: deque[asyncio.Future[None]] = deque()
        self._new: deque[asyncio.Future[None]] = deque()
        self._lifted = False

    @property
    def free(self) -> int:
        """Slots nobody holds and nobody has been promised."""
        return max(self._free, 0)

    @property
    def waiting(self) -> int:
        """Tasks that wait for a slot."""
        return len(self._resuming) + len(self._new)

    async def acquire(self, *, resuming: bool = False) -> None:
        """Take a slot, waiting for one if need be; `release` gives it back.

        Args:
            resuming: Go ahead of all that have not started yet.
        """
        if self._free > 0 or (resuming and self._lifted):
            self._free -= 1
            return
        waiters = self._resuming if resuming else self._new
        waiter = asyncio.get_running_loop().create_future()
        waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                with contextlib.suppress(ValueError):  # release() may have skipped over it already
                    waiters.remove(waiter)
            else:
                self.release()  # granted and cancelled in the same turn of the loop
            raise

    def release(self) -> None:
        """Give a slot back: to whoever waits first, else it is free."""
        waiter = self._next_waiter() if self._free >= 0 else None
        if waiter is not None:
            # Handed over without being counted as free: the intake would take a message for it.
            waiter.set_result(None)
            return
        self._free += 1
        if self._free > 0 and self._on_change is not None:
            self._on_change()

    def lift(self) -> None:
        """Let every task that resumes go on without a slot: the process ends, and they must unwind."""
        self._lifted = True
        while self._resuming:
            waiter = self._resuming.popleft()
            if not waiter.done():
                self._free -= 1
                waiter.set_result(None)

    def _next_waiter(self) -> asyncio.Future[None] | None:
        for waiters in (self._resuming, self._new):
            while waiters:
                waiter = waiters.popleft()
                if not waiter.done():
                    return waiter
        return None


class Slot:
    """The slot one task body holds, shared by all asyncio tasks it starts.

    Giving it back twice, or taking it again while it is held, does nothing.
    """

    parks = False  # a run that waits stays in memory

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._held = True
        self._closed = False
        self._retaking = asyncio.Lock()

    @property
    def held(self) -> bool:
        """Whether the body has its slot now."""
        return self._held

    def yield_(self) -> None:
        """Give the slot to others; the body must only wait until it has it again."""
        if self._held:
            self._held = False
            self._slots.release()

    async def retake(self) -> None:
        """Have the slot again, ahead of all tasks that have not started yet."""
        async with self._retaking:
            if self._held or self._closed:
                return
            await self._slots.acquire(resuming=True)
            self._held = True
        self._give_back_if_closed()

    def _give_back_if_closed(self) -> None:
        if self._closed:  # the body ended while a child task of it waited
            self.yield_()

    def close(self) -> None:
        """The body has ended: give the slot back for good, whatever its child tasks still do."""
        self._closed = True
        self.yield_()

    @contextlib.asynccontextmanager
    async def released(self) -> AsyncIterator[None]:
        """Lend the slot to others inside the block; hold it again, waiting if need be, after it."""
        self.yield_()
        try:
            yield
        finally:
            # Also when the block failed: the code that handles the failure executes.
            await self.retake()


def current_slot() -> Slot | None:
    """The slot of the task body this code belongs to; None outside the asyncio pool."""
    return _current.get()


def enter_slot(slot: Slot) -> None:
    """Make a slot the current one of this asyncio task and of the tasks it starts."""
    _current.set(slot)
