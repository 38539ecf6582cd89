"""A prefork pool: each of its processes is a worker of its own in the journal, the parent none.

So the death of one process is noticed like that of any worker, and the parent, which forks again and again,
holds no connection, no loop and no lock of ours.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery, signals

from polos.worker.stock import HOST, StockHost


class ForkedHosts:
    """Starts a host in every process of a prefork pool, and has all of them drain when the parent ends.

    Every process reads from a pipe that the parent never writes to: its end is the word to drain, also when
    the parent is killed.
    """

    def __init__(self, app: Celery, new_host: Callable[[], StockHost]) -> None:
        self._app = app
        self._new_host = new_host
        self._parent = os.getpid()
        self._reader, self._writer = os.pipe()
        self._host: StockHost | None = None
        signals.worker_process_init.connect(self._begin)
        signals.worker_process_shutdown.connect(self._end)

    def drain(self) -> None:
        """Have every process hand its runs back; called in the parent, returns at once."""
        if os.getpid() == self._parent and self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def _begin(self, **_: Any) -> None:
        """Celery's signal, in a new process before its first task."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
        self._host = host = self._new_host()
        setattr(self._app, HOST, host)
        threading.Thread(target=self._await_end, args=(host,), name="polos-parent", daemon=True).start()
        host.start_soon()

    def _await_end(self, host: StockHost) -> None:
        with contextlib.suppress(OSError):
            os.read(self._reader, 1)
        host.drain()

    def _end(self, **_: Any) -> None:
        """Celery's signal, in a process that ends: told to, killed with SIGTERM, or worn out."""
        if self._host is not None:
            self._host.drain(grace_seconds=0.0)
