"""Says when code blocks the event loop of a worker, and which code it is."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from itertools import islice

logger = logging.getLogger("polos.worker")

LOOKS_PER_LIMIT = 4
SHOWN_FRAMES = 6


class LoopWatch:
    """Asks a loop for a sign of life, from a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, limit_seconds: float) -> None:
        self._loop = loop
        self._limit = limit_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._answered = True
        self._asked_at = self._looked_at = 0.0
        self._told = False
        self._loop_thread = 0

    def start(self) -> None:
        """Begin to watch; with a limit of 0, do not."""
        if self._limit:
            self._looked_at = time.monotonic()
            self._thread = threading.Thread(target=self._run, name="polos-loop-watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Watch no longer; harmless when it never began."""
        self._stop.set()

    def look(self, now: float) -> None:
        """Look once, at a monotonic time in seconds."""
        was_away = now - self._looked_at > self._limit  # the machine slept, or this process was stopped
        self._looked_at = now
        if self._answered:
            self._tell_end(now)
            self._ask(now)
        elif was_away:
            self._asked_at = now
        elif not self._told and now - self._asked_at >= self._limit:
            self._told = True
            logger.warning(
                "The event loop has been blocked for %.1f s: nothing else goes on in this worker meanwhile. "
                "Make the function a plain `def`, which runs in a thread, or call what blocks with "
                "asyncio.to_thread. It is at\n%s",
                now - self._asked_at,
                self._place(),
            )

    def _run(self) -> None:
        while not self._stop.wait(self._limit / LOOKS_PER_LIMIT):
            try:
                self.look(time.monotonic())
            except RuntimeError:
                return  # the loop is closed

    def _ask(self, now: float) -> None:
        self._answered, self._asked_at = False, now
        self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._loop_thread = threading.get_ident()
        self._answered = True

    def _tell_end(self, now: float) -> None:
        if self._told:
            self._told = False
            logger.warning("The event loop goes on after %.1f s", now - self._asked_at)

    def _place(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        innermost = islice(traceback.walk_stack(frame), SHOWN_FRAMES)
        return "".join(reversed(traceback.StackSummary.extract(innermost).format())).rstrip()
