"""The slots of a worker process: how many bodies execute at once, and how a waiting one lends its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

_current: contextvars.ContextVar[Slot | None] = contextvars.ContextVar("polos_slot", default=None)


@dataclass(eq=False)
class _Waiter:
    number: int
    granted: asyncio.Future[None]


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
        self._resuming: deque[_Waiter] = deque()
        self._new: deque[_Waiter] = deque()
        self._lifted = False

    @property
    def free(self) -> int:
        """Slots nobody holds and nobody has been promised."""
        return 0 if self.waiting else max(self._free, 0)

    @property
    def waiting(self) -> int:
        """Tasks that wait for a slot."""
        return len(self._resuming) + len(self._new)

    async def acquire(self, number: int = 1, *, resuming: bool = False) -> None:
        """Take slots, waiting for them if need be; `release` gives them back.

        Args:
            number: How many; nobody overtakes one who waits for more than are free.
            resuming: Go ahead of all that have not started yet.
        """
        ahead = len(self._resuming) if resuming else self.waiting
        if (self._free >= number and not ahead) or (resuming and self._lifted):
            self._free -= number
            return
        waiters = self._resuming if resuming else self._new
        waiter = _Waiter(number, asyncio.get_running_loop().create_future())
        waiters.append(waiter)
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.cancelled():
                with contextlib.suppress(ValueError):  # release() may have skipped over it already
                    waiters.remove(waiter)
                self.release(0)  # those behind it may need fewer
            else:
                self.release(number)  # granted and cancelled in the same turn of the loop
            raise

    def release(self, number: int = 1) -> None:
        """Give slots back: to those who wait first, else they are free."""
        # Handed over without being counted as free: the intake would take a message for it.
        free = self._free + number
        while (waiter := self._next_waiter(free)) is not None:
            free -= waiter.number
            waiter.granted.set_result(None)
        self._free = free
        if self.free > 0 and self._on_change is not None:
            self._on_change()

    def lift(self) -> None:
        """Let every task that resumes go on without a slot: the process ends, and they must unwind."""
        self._lifted = True
        while self._resuming:
            waiter = self._resuming.popleft()
            if not waiter.granted.done():
                self._free -= waiter.number
                waiter.granted.set_result(None)

    def _next_waiter(self, free: int) -> _Waiter | None:
        for waiters in (self._resuming, self._new):
            while waiters:
                if waiters[0].granted.done():
                    waiters.popleft()
                elif waiters[0].number <= free:
                    return waiters.popleft()
                else:
                    return None
        return None


class Slot:
    """The slot one task body holds, shared by all asyncio tasks it starts; several for a suspect.

    Giving it back twice, or taking it again while it is held, does nothing.
    """

    parks = False  # a run that waits stays in memory

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._held = True
        self._number = 1
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
            self._slots.release(self._number)

    async def retake(self) -> None:
        """Have the slot again, ahead of all tasks that have not started yet."""
        async with self._retaking:
            if self._held or self._closed:
                return
            number = self._number
            await self._slots.acquire(number, resuming=True)
            self._held = True
            if number > self._number:  # it was narrowed meanwhile
                self._slots.release(number - self._number)
        self._give_back_if_closed()

    async def widen(self, share: Callable[[int], int], *, patience_seconds: float) -> bool:
        """Hold `share` of all slots, or give back the one that is held and return False.

        Those that have begun go first, and nobody begins meanwhile.

        Args:
            share: Says of how many slots how many are wanted.
            patience_seconds: How long to wait for others to end.
        """
        number = min(share(self._slots.limit), self._slots.limit)
        if number <= self._number:
            return True
        Slot.yield_(self)  # the task goes on: it only waits
        self._number = number
        try:
            async with asyncio.timeout(patience_seconds):
                await self.retake()
        except TimeoutError:
            return False
        return self._held

    def narrow(self) -> None:
        """Keep one slot of those that were taken."""
        surplus, self._number = self._number - 1, 1
        if surplus and self._held:
            self._slots.release(surplus)

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
