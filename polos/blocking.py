"""Async calls for callers that have no event loop: they run on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from polos.threads import DaemonThreads

T = TypeVar("T")
Leave = Callable[[], Awaitable[None]]

logger = logging.getLogger("polos.client")

BLOCKING_THREADS = 32
END_SECONDS = 2.0
_END = object()


class Background:
    """An event loop in a daemon thread, begun with the first call; for one process, and any of its threads.

    It ends with `stop`, with the interpreter, or when nobody refers to this object any more.

    Args:
        leave: Awaited on the loop before it ends.
    """

    def __init__(self, leave: Leave) -> None:
        self._leave = leave
        self._pid = os.getpid()
        self._lock = threading.RLock()  # the garbage collector may get here from within
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._end: weakref.finalize[Any, Any] | None = None

    @property
    def is_here(self) -> bool:
        """Whether the calling code runs on this loop."""
        return threading.current_thread() is self._thread

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns, once it has; an interrupted caller cancels it.

        Raises:
            RuntimeError: Called on the loop's own thread, after a fork, or stopped meanwhile.
        """
        if (problem := self._problem()) is not None:
            work.close()
            raise RuntimeError(problem)
        with self._lock:  # held, so that nothing is handed to a loop that has been told to end
            future = asyncio.run_coroutine_threadsafe(work, self._running_loop())
        try:
            return future.result()
        except CancelledError as error:
            raise RuntimeError("The client was closed while this call was under way") from error
        finally:
            future.cancel()  # of no effect unless the waiting itself was interrupted

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Yield what `items` yields; it is closed when the iteration ends or is given up."""
        try:
            while (item := self.call(_next(items))) is not _END:
                yield item
        finally:
            self._abandon(items)

    def stop(self) -> None:
        """Cancel what is under way and end the loop; a later call begins another."""
        with self._lock:
            end, self._end, self._loop, self._thread = self._end, None, None, None
        if end is not None:
            end()

    def _problem(self) -> str | None:
        if self._pid != os.getpid():
            return "This was begun in the process that this one was forked from; begin it again here"
        if self.is_here:
            return "A sync form waits for this very event loop, and would wait for ever: await the method"
        return None

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
            self._end = weakref.finalize(self, _end_loop, self._loop, self._thread, self._leave, self._pid)
        return self._loop

    def _abandon(self, items: AsyncIterator[Any]) -> None:
        """Have an iterator closed, soon: whoever drops one, such as the garbage collector, must not wait."""
        close = getattr(items, "aclose", None)
        if close is None or self._pid != os.getpid():
            return
        with self._lock:
            if self._loop is not None:
                asyncio.run_coroutine_threadsafe(_closed(close), self._loop)


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


def _end_loop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, leave: Leave, pid: int) -> None:
    """End a loop; in a forked child it is the parent's, whose thread does not exist here."""
    if pid != os.getpid() or not thread.is_alive():
        return
    asyncio.run_coroutine_threadsafe(_unwind(leave), loop)
    if threading.current_thread() is not thread:
        thread.join(END_SECONDS)


async def _unwind(leave: Leave) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(END_SECONDS / 2):
            await leave()  # first, for it sends what is waiting to be sent
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=END_SECONDS / 4)
        await loop.shutdown_asyncgens()
    except Exception:
        logger.exception("The event loop of a client's sync forms did not end in order")
    finally:
        loop.stop()
