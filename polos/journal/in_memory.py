"""A journal in memory, for tests: one SQLite database of this process, whose clock somebody else turns."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from functools import cache

from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import StaticPool

from polos.encryption import PLAIN, Codec
from polos.journal.database import Database
from polos.journal.sqlite import SqliteConnection
from polos.journal.statements import Params, Rows, Statement
from polos.journal.tables import JournalTable

EPOCH_DAYS = 2440587.5  # the epoch as a Julian day, as `now()` of the statements takes it off
DAY_SECONDS = 86400.0


class MemoryDatabase(Database):
    """A new journal with its schema. All connections share one of the driver's, and take turns.

    Args:
        clock: Returns what the database takes for the time, in seconds since the epoch.
        content: What is in it, as bytes of an SQLite database with this version's schema; by default nothing.
        codec: Reads and writes its values.
    """

    has_schema = True

    def __init__(
        self, clock: Callable[[], float], content: bytes | None = None, *, codec: Codec = PLAIN
    ) -> None:
        self.url = make_url("sqlite://")
        self.sqlite_sync = "normal"
        self.codec = codec
        self.turn = threading.RLock()
        self.driver = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.driver.deserialize(content or _empty_journal())
        self.driver.create_function("julianday", 1, lambda _: clock() / DAY_SECONDS + EPOCH_DAYS)

    def connect(self, *, impatient: bool = False) -> MemoryConnection:
        """Return a connection like those to a file."""
        return MemoryConnection(self)

    def open_sqlite(self) -> SqliteConnection:
        """Return the same, for a writer that takes turns by itself."""
        return MemoryConnection(self)

    def close(self) -> None:
        """Let everything go; what still uses a connection gets an error of the driver's."""
        with self.turn:
            self.driver.close()


class MemoryConnection(SqliteConnection):
    """One of several users of a journal in memory, with its place among the writers."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._dialect = database.dialect
        self._codec = database.codec
        self._driver = database.driver
        self._in_turn = database.turn

    def take_turn(self, *, blocking: bool = True) -> bool:
        """Take the turn to write; False when another writer has it and `blocking` is off."""
        return self._in_turn.acquire(blocking=blocking)

    def end_turn(self) -> None:
        """Let the next one in."""
        self._in_turn.release()

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT; not in the middle of somebody's transaction."""
        with self._in_turn:
            return super().read(statement, params)

    def close(self) -> None:
        """Do nothing: others use the driver's connection too."""


@cache
def _empty_journal() -> bytes:
    """Return a database with the tables of this version, made without the history of their migrations."""
    driver = sqlite3.connect(":memory:", isolation_level=None)
    engine = create_engine("sqlite://", creator=lambda: driver, poolclass=StaticPool)
    JournalTable.metadata.create_all(engine)
    empty = driver.serialize()
    engine.dispose()
    return empty
