"""The beat of a worker: a thread and a database connection of its own, so that nothing else delays it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from polos.errors import JournalUnavailableError
from polos.journal.database import Connection, Database
from polos.journal.liveness import Liveness
from polos.journal.workers import beat

logger = logging.getLogger("polos.worker")

LOOK_AGAIN_SECONDS = 0.05  # for whoever waits until this worker has been heard of
NEVER = float("-inf")
RETRY_SECONDS = 0.5  # while the database is away


class Heartbeat:
    """Beats until stopped; knows when it was last acknowledged."""

    def __init__(
        self,
        database: Database,
        liveness: Liveness,
        *,
        beat_seconds: float,
        silence_limit_seconds: float,
        on_declared_dead: Callable[[], None],
    ) -> None:
        self._database = database
        self._liveness = liveness
        self._beat_seconds = beat_seconds
        self._may_start_within = silence_limit_seconds / 2
        self._on_declared_dead = on_declared_dead
        self._acknowledged = NEVER
        self._stop = threading.Event()
        self._connection: Connection | None = None
        self._has_lock = False
        self._thread: threading.Thread | None = None
        self.worker_id = ""

    def start(self, worker_id: str) -> None:
        """Begin to beat for a worker that is registered now."""
        self.worker_id = worker_id
        self._acknowledged = time.monotonic()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="polos-heartbeat", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop beating and give the connection up, and the lock with it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self._beat_seconds + 2)
        self._disconnect()

    @property
    def is_fresh(self) -> bool:
        """Whether the last acknowledged beat is younger than half the silence limit."""
        return time.monotonic() - self._acknowledged < self._may_start_within

    async def may_start(self) -> None:
        """Return once a side effect may be started: nobody can have declared this worker dead."""
        while not self.is_fresh:  # noqa: ASYNC110 - the beat is another thread's, and knows no loop
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    def hold_until_fresh(self) -> None:
        """Keep a thread from calling a function of the user until it may be started; see `may_start`."""
        while not self.is_fresh and not self._stop.wait(LOOK_AGAIN_SECONDS):
            pass

    def connect(self) -> Connection:
        """Return the connection that beats, holding this worker's lock."""
        if self._connection is None:
            self._connection = self._database.connect(impatient=True)
            self._has_lock = False
        if not self._has_lock:  # a session that was lost with its connection may still have it
            self._has_lock = self._liveness.hold(self.worker_id, self._connection)
        return self._connection

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            pause = self._beat()

    def _beat(self) -> float:
        """Beat once; return the pause before the next."""
        sent = time.monotonic()
        worker_id = self.worker_id
        try:
            [rows] = self.connect().commit([beat(worker_id)])
            if rows:
                self._acknowledged = sent
            elif not self._stop.is_set():
                self._acknowledged = NEVER
                self._disconnect()
                self._on_declared_dead()
        except JournalUnavailableError as error:
            logger.warning("Worker %s cannot beat: %s", worker_id, error)
            self._disconnect()
            return RETRY_SECONDS
        except Exception:
            logger.exception("A beat of worker %s failed; the next one tries again", worker_id)
            self._disconnect()
            return RETRY_SECONDS
        return self._beat_seconds

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
