"""Async calls for callers that have no event loop: they run on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from polos.forks import Forked
from polos.threads import DaemonThreads

T = TypeVar("T")
Leave = Callable[[], Awaitable[None]]
Calls = set[Coroutine[Any, Any, Any]]

logger = logging.getLogger("polos.client")

BLOCKING_THREADS = 32
END_SECONDS = 2.0
ROUNDS = 3
_END = object()


class Background(Forked):
    """An event loop in a daemon thread, begun with the first call, for any thread of the process.

    It ends with `stop`, with the interpreter, or when nobody refers to this object any more.

    Args:
        leave: Awaited on the loop before it ends.
    """

    def __init__(self, leave: Leave) -> None:
        self._leave = leave
        self._begin()
        self.watch_forks()

    def _begin(self) -> None:
        self._lock = threading.RLock()  # the garbage collector may get here from within
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._calls: Calls = set()  # that are under way
        self._end: weakref.finalize[Any, Any] | None = None

    @property
    def is_here(self) -> bool:
        """Whether the calling code runs on this loop."""
        return threading.current_thread() is self._thread

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns, once it has; an interrupted caller cancels it.

        Raises:
            RuntimeError: Called on the loop's own thread, or stopped meanwhile.
        """
        if self.is_here:
            work.close()
            raise RuntimeError(
                "A sync form waits for this very event loop, and would wait for ever: await the method"
            )
        with self._lock:  # held, so that nothing is handed to a loop that has been told to end
            self._calls.add(work)
            future = asyncio.run_coroutine_threadsafe(work, self._running_loop())
        try:
            return future.result()
        except CancelledError as error:
            raise RuntimeError("The client was closed while this call was under way") from error
        finally:
            future.cancel()  # of no effect unless the waiting itself was interrupted
            self._calls.discard(work)

    def iterate(self, items: AsyncIterable[T]) -> Iterator[T]:
        """Yield what `items` yields; it is closed when the iteration ends or is given up.

        Raises:
            RuntimeError: The loop it was begun on is not there any more, or not in this process.
        """
        iterator = aiter(items)
        item, begun = self.call(_next(iterator)), self._loop
        try:
            while item is not _END:
                yield item
                if self._loop is not begun:
                    raise RuntimeError(
                        "The client was closed, or its process forked, since this iteration began; repeat it"
                    )
                item = self.call(_next(iterator))
        finally:
            self._abandon(iterator, begun)

    def stop(self) -> None:
        """Cancel what is under way and end the loop; a later call begins another."""
        with self._lock:
            end, self._end, self._loop, self._thread = self._end, None, None, None
        if end is not None:
            end()

    def before_fork(self) -> None:
        """Hand nothing over just then."""
        self._lock.acquire()

    def after_fork(self) -> None:
        """Go on, in the parent."""
        self._lock.release()

    def forget(self) -> None:
        """Begin anew, in the child, where the thread of the loop does not exist."""
        self._begin()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            self._loop = asyncio.new_event_loop()
            self._loop.set_default_executor(
                DaemonThreads("polos-client-work", limit=BLOCKING_THREADS, initializer=lambda: None)
            )
            self._thread = threading.Thread(
                target=_serve, args=(self._loop,), name="polos-client", daemon=True
            )
            self._thread.start()
            self._end = weakref.finalize(
                self, _end_loop, self._loop, self._thread, self._calls, self._leave, os.getpid()
            )
        return self._loop

    def _abandon(self, items: AsyncIterator[Any], loop: asyncio.AbstractEventLoop | None) -> None:
        """Have an iterator closed, soon: whoever drops one, such as the garbage collector, must not wait."""
        close = getattr(items, "aclose", None)
        if close is None or _is_exiting():
            return
        with self._lock:
            if loop is not None and loop is self._loop:
                asyncio.run_coroutine_threadsafe(_closed(close), loop)


async def _next(items: AsyncIterator[Any]) -> Any:
    try:
        return await anext(items)
    except StopAsyncIteration:
        return _END


async def _closed(close: Callable[[], Awaitable[None]]) -> None:
    try:
        await close()
    except RuntimeError as error:
        logger.debug("An iterator could not be closed: %s", error)  # it is being read, hence closed with that


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _end_loop(
    loop: asyncio.AbstractEventLoop, thread: threading.Thread, calls: Calls, leave: Leave, pid: int
) -> None:
    """End a loop; in a forked child it is the parent's, whose thread does not exist here."""
    if pid != os.getpid() or not thread.is_alive():
        return
    if _is_exiting():  # threads that wait are left to their fate, which is that of all daemons
        done = asyncio.run_coroutine_threadsafe(_leave_in_time(leave), loop)
        with contextlib.suppress(TimeoutError):
            done.result(END_SECONDS)
        return
    asyncio.run_coroutine_threadsafe(_unwind(calls, leave), loop)
    if threading.current_thread() is not thread:
        thread.join(END_SECONDS)


def _is_exiting() -> bool:
    return not threading.main_thread().is_alive()  # its end is the first thing the interpreter notes


async def _unwind(calls: Calls, leave: Leave) -> None:
    loop = asyncio.get_running_loop()
    try:
        await _cancel({task for task in asyncio.all_tasks() if task.get_coro() in calls})
        await loop.shutdown_asyncgens()
        await _leave_in_time(leave)  # sends what is waiting to be sent
        for _ in range(ROUNDS):  # what is cancelled may begin something to clean up with
            await _cancel(asyncio.all_tasks() - {asyncio.current_task()})
    finally:
        loop.stop()


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=END_SECONDS / 8)


async def _leave_in_time(leave: Leave) -> None:
    """Leave the loop; what goes wrong with that is logged, for nobody waits for it."""
    try:
        async with asyncio.timeout(END_SECONDS / 2):
            await leave()
    except Exception:
        logger.exception("A client did not leave its event loop in order")
