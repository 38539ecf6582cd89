"""An executor whose threads never hold up the end of a process."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThreads(ThreadPoolExecutor):
    """An executor whose threads never hold up the end of the process.

    `concurrent.futures` joins its threads at interpreter exit, so one blocking call keeps a script alive.

    Args:
        name: Prefix of the thread names.
        limit: Most threads at a time; calls beyond wait.
        initializer: Called first in every thread.
        gate: Called in the thread before each call, which is not made if it is cancelled meanwhile.
    """

    def __init__(
        self,
        name: str,
        *,
        limit: int,
        initializer: Callable[[], Any],
        gate: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(max_workers=1)  # starts no thread; the event loop insists on the type
        self._name, self._limit, self._initialize, self._gate = name, limit, initializer, gate
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._starting = threading.Lock()
        self._count = 0

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call a function in a thread; the future has its outcome."""
        future: Future[T] = Future()
        self._calls.put((future, functools.partial(fn, *args, **kwargs)))
        if not self._idle.acquire(blocking=False):
            self._start_thread()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let idle threads end; busy ones end when their call does. Never waits."""
        for _ in range(self._count):
            self._calls.put(None)

    def _start_thread(self) -> None:
        with self._starting:
            if self._count >= self._limit:
                return
            self._count += 1
        threading.Thread(target=self._serve, name=f"{self._name}-{self._count}", daemon=True).start()

    def _serve(self) -> None:
        self._initialize()
        while (item := self._calls.get()) is not None:
            future, call = item
            self._gate()
            if future.set_running_or_notify_cancel():
                _settle(future, call)
            del item, future, call  # an idle thread must not keep arguments and results alive
            self._idle.release()


def _settle(future: Future[Any], call: Callable[[], Any]) -> None:
    try:
        value = call()
    except BaseException as error:  # noqa: BLE001 - the caller gets it, whatever it is
        future.set_exception(error)
    else:
        future.set_result(value)
