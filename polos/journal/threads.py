"""Blocking connections to the journal, for callers on an event loop who want an answer or an error now."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from polos.errors import JournalUnavailableError
from polos.journal import schema
from polos.journal.database import Connection, Database

T = TypeVar("T")


class JournalThreads:
    """Does work on the journal in threads. Connects when first used, and creates the schema if there is none.

    Args:
        connections: How many pieces of work are done at once; more wait.
    """

    def __init__(self, database: Database, *, connections: int = 4) -> None:
        self._database = database
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue()
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="polos-journal")
        self._preparing = threading.Lock()
        self._is_prepared = False

    async def call(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns. It is done again, on a new connection, if the old one had died idle.

        Raises:
            JournalUnavailableError: The database does not answer.
            SchemaVersionError: Its schema is not the one of this version.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._do, work)

    def close(self) -> None:
        """Wait for what is being done, then give the connections up."""
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().close()

    def _do(self, work: Callable[[Connection], T]) -> T:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            return self._do_on(self._connect(), work)
        try:
            return self._do_on(connection, work)
        except JournalUnavailableError:
            return self._do_on(self._connect(), work)

    def _do_on(self, connection: Connection, work: Callable[[Connection], T]) -> T:
        try:
            result = work(connection)
        except JournalUnavailableError:
            connection.close()
            raise
        except BaseException:
            self._idle.put(connection)
            raise
        self._idle.put(connection)
        return result

    def _connect(self) -> Connection:
        with self._preparing:
            if not self._is_prepared:
                schema.prepare(self._database)
                self._is_prepared = True
        return self._database.connect()
