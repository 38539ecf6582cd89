"""Signals that end a program, while it serves and while its own code blocks the loop, as `input()` does."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stop_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call this at SIGINT and SIGTERM, while inside; nothing where the loop cannot, as in other threads."""
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}
    try:
        for number in _STOP_SIGNALS:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                handler = signal.getsignal(number)
                loop.add_signal_handler(number, stop)
                before[number] = handler
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            if handler is not None:  # None: not set from Python
                signal.signal(number, handler)


class Interrupts:
    """While installed, Ctrl-C ends what the installing task executes at that moment.

    asyncio cancels its main task at the first Ctrl-C, which a task that sits in `input()` does not notice.
    Here KeyboardInterrupt is raised in it, as without asyncio. A task that awaits is cancelled as ever.
    """

    def __init__(self) -> None:
        self._mine: Callable[[int, FrameType | None], Any] | None = None
        self._previous: Callable[[int, FrameType | None], Any] | None = None

    def install(self) -> None:
        """Begin, from the task; nothing where Python itself or nobody handles Ctrl-C, or in other threads."""
        previous = signal.getsignal(signal.SIGINT)
        if not _is_main_thread() or not callable(previous) or previous is signal.default_int_handler:
            return
        self._previous, self._mine = previous, _interrupting(asyncio.current_task(), previous)
        signal.signal(signal.SIGINT, self._mine)

    def remove(self) -> None:
        """End; a handler that somebody installed since is left alone."""
        mine, previous, self._mine, self._previous = self._mine, self._previous, None, None
        if mine is not None and _is_main_thread() and signal.getsignal(signal.SIGINT) is mine:
            signal.signal(signal.SIGINT, previous)


def _interrupting(
    task: asyncio.Task[Any] | None, otherwise: Callable[[int, FrameType | None], Any]
) -> Callable[[int, FrameType | None], Any]:
    def interrupt(number: int, frame: FrameType | None) -> Any:
        if task is not None and _executing() is task:
            raise KeyboardInterrupt
        return otherwise(number, frame)

    return interrupt


def _executing() -> asyncio.Task[Any] | None:
    """Return the task of this thread whose code is executing now, None while the loop waits."""
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs
        return None


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
