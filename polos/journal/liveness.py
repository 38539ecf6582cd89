"""Locks that the death of a worker frees: advisory on PostgreSQL, a locked file beside an SQLite journal.

A free lock shortens the wait for a dead worker; it is no proof of death, for a lost connection frees it too.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import psycopg

from polos.errors import JournalUnavailableError
from polos.journal.database import Connection, Database
from polos.journal.postgres import PostgresConnection
from polos.journal.statements import Rows
from polos.journal.workers import SeenWorker, lock_key

logger = logging.getLogger("polos.worker")

NO_LOCK = 0  # the key of workers that hold none: their death is told by their silence only
POOLED = (
    "The database is behind a connection pooler: that this worker is dead could be told by its silence only. "
    "For sooner, let POLOS_DATABASE_DIRECT_URL name the server itself; each worker has one connection there."
)
LOCK_SPACE = 0x706F6C  # first key of the advisory locks: a number space of our own


class Liveness(Protocol):
    """The lock of this worker, and a look at those of others."""

    def hold(self, worker_id: str, connection: Connection) -> bool:
        """Take the lock, on `connection` where the database keeps it; False while a lost session has it."""

    def lock_key(self, worker_id: str) -> int:
        """Return what this worker enters as the key of its lock: NO_LOCK if it can hold none."""

    def free(self, workers: Sequence[SeenWorker], connection: Connection) -> set[str]:
        """Return the ids of those whose lock is free."""

    def server_up_seconds(self, connection: Connection) -> float:
        """Return for how long locks have not been dropped all at once by a restart of the database."""

    def forget(self, worker_id: str) -> None:
        """Remove what a dead worker left."""

    def release(self) -> None:
        """Give the lock of this worker up."""


def liveness_for(database: Database) -> Liveness:
    """Return the kind of lock that goes with `database`."""
    return FileLiveness(database.lock_folder) if database.is_sqlite else PostgresLiveness()


class FileLiveness:
    """A file per worker, locked by ``flock``: one host. Forked children drop it, else they would hold it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held = -1
        self._pid = os.getpid()
        os.register_at_fork(after_in_child=self._drop)

    def hold(self, worker_id: str, connection: Connection) -> bool:
        """Lock this worker's file; harmless when it is locked already."""
        if self._held >= 0:
            return True
        self._folder.mkdir(parents=True, exist_ok=True)
        self._held = os.open(self._folder / worker_id, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True

    def lock_key(self, worker_id: str) -> int:
        """Return the key that goes with the id: files can always be locked."""
        return lock_key(worker_id)

    def free(self, workers: Sequence[SeenWorker], connection: Connection) -> set[str]:
        """Return the ids of those whose file nobody locks."""
        return {worker.id for worker in workers if self._is_free(worker.id)}

    def server_up_seconds(self, connection: Connection) -> float:
        """Return infinity: no server drops these locks."""
        return float("inf")

    def forget(self, worker_id: str) -> None:
        """Remove a dead worker's file."""
        (self._folder / worker_id).unlink(missing_ok=True)

    def release(self) -> None:
        """Unlock this worker's file."""
        self._drop()

    def _is_free(self, worker_id: str) -> bool:
        try:
            probe = os.open(self._folder / worker_id, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError as error:
            advice = "; raise 'ulimit -n'" if error.errno == errno.EMFILE else ""
            raise JournalUnavailableError(f"{error}{advice}") from error
        try:
            fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two sweepers do not see each other
        except BlockingIOError:
            return False
        finally:
            os.close(probe)
        return True

    def _drop(self) -> None:
        if self._held >= 0:
            os.close(self._held)
        self._held = -1


class PostgresLiveness:
    """A session advisory lock on the connection that beats; none behind a pooler, where sessions move."""

    def __init__(self) -> None:
        self._can_hold = True

    def hold(self, worker_id: str, connection: Connection) -> bool:
        """Take the lock on this connection; harmless when it holds it already, or can hold none."""
        assert isinstance(connection, PostgresConnection)
        if connection.is_pooled:
            if self._can_hold:
                logger.warning(POOLED)
            self._can_hold = False
            return True
        key = (LOCK_SPACE, lock_key(worker_id))
        return bool(self._query(connection, "SELECT pg_try_advisory_lock(%s, %s)", key)[0][0])

    def lock_key(self, worker_id: str) -> int:
        """Return the key that goes with the id, or NO_LOCK behind a pooler."""
        return lock_key(worker_id) if self._can_hold else NO_LOCK

    def free(self, workers: Sequence[SeenWorker], connection: Connection) -> set[str]:
        """Return the ids of those whose lock no session holds. Locks are read, never tried."""
        held = {
            row[0]
            for row in self._query(
                connection,
                "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted"
                " AND classid = %s AND objsubid = 2"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                (LOCK_SPACE,),
            )
        }
        return {
            worker.id
            for worker in workers
            if worker.lock_key != NO_LOCK and worker.lock_key % 2**32 not in held
        }

    def server_up_seconds(self, connection: Connection) -> float:
        """Return how long ago the server started."""
        text = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"
        return float(self._query(connection, text, ())[0][0])

    def forget(self, worker_id: str) -> None:
        """Do nothing: the lock went with its session."""

    def release(self) -> None:
        """Do nothing: the lock goes with its connection."""

    @staticmethod
    def _query(connection: Connection, text: str, params: tuple[object, ...]) -> Rows:
        assert isinstance(connection, PostgresConnection)
        try:
            return connection.driver.execute(text, params).fetchall()
        except psycopg.Error as error:
            raise JournalUnavailableError(str(error)) from error
