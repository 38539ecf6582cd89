"""An event loop in a thread of its own, used from other threads."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

try:
    from uvloop import new_event_loop
except ImportError:  # not on Windows, nor on PyPy
    from asyncio import new_event_loop

T = TypeVar("T")

logger = logging.getLogger("polos.worker")


class LoopThread:
    """Runs a loop from `start` to `stop`.

    Args:
        name: Of the thread.
        initializer: Called first in the thread.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self, name: str, *, initializer: Callable[[], Any]) -> None:
        self._name = name
        self._initialize = initializer
        self._thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the loop runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the loop."""
        self.loop = new_event_loop()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Have a function called on the loop, soon; nothing happens once it has stopped."""
        if self.is_alive:
            self.loop.call_soon_threadsafe(function, *args)

    def run(self, work: Coroutine[Any, Any, T], timeout_seconds: float | None = None) -> T:
        """Run a coroutine on the loop and return its result; for any thread but the loop's own.

        Raises:
            TimeoutError: It did not end in time; it is cancelled.
            RuntimeError: Called on the loop's thread, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("run_coroutine() blocks: on the pool's own loop `await` the coroutine instead")
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(timeout_seconds)
        except TimeoutError:
            future.cancel()
            raise

    def stop(self, timeout_seconds: float) -> None:
        """Cancel what is left on the loop and end it; what blocks it longer than that is left behind."""
        if not self.is_alive:
            return
        assert self._thread is not None
        try:
            self.run(_unwind(timeout_seconds), timeout_seconds=timeout_seconds + 1.0)
        except TimeoutError:
            logger.error("A task body blocks the event loop; it is left behind")
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout_seconds)
        if not self._thread.is_alive():
            self.loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self._initialize()
        while True:
            try:
                self.loop.run_forever()
                return
            except (SystemExit, KeyboardInterrupt) as error:
                # asyncio lets these two out of the loop; one task must not stop all others.
                logger.error("%r was raised in a child task of a task body", error)


async def _unwind(timeout_seconds: float) -> None:
    """Cancel every task left on the loop and let generators close."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=timeout_seconds)
    await asyncio.get_running_loop().shutdown_asyncgens()
