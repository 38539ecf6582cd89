"""SQLite connections. Writers of all processes queue in the kernel (flock), so that none starves."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Dialect

from polos.encryption import PLAIN, Codec
from polos.errors import JournalUnavailableError
from polos.journal.statements import (
    Answer,
    Params,
    Part,
    Rows,
    Statement,
    Unit,
    certain,
    opened_answers,
)

T = TypeVar("T")
LOOK_AGAIN_SECONDS = 0.01
BUSY_TIMEOUT_SECONDS = 10.0  # for programs that write the file without taking our turn
_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
}


class SqliteConnection:
    """One connection and this connection's place in the queue of writers. Not for two threads at once."""

    def __init__(self, path: Path, dialect: Dialect, *, sync: str = "normal", codec: Codec = PLAIN) -> None:
        self._dialect = dialect
        self._codec = codec
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._driver = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_SECONDS
            )
            self._log_ahead()
            self._driver.execute(f"PRAGMA synchronous={sync}")
            self._turn = os.open(f"{path}.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (sqlite3.OperationalError, OSError) as error:
            raise JournalUnavailableError(str(error)) from error

    def _log_ahead(self) -> None:
        """Set WAL mode, kept in the file. While others open a new file, SQLite refuses without waiting."""
        deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
        while True:
            try:
                self._driver.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(LOOK_AGAIN_SECONDS)

    def take_turn(self, *, blocking: bool = True) -> bool:
        """Take this folder's turn to write; False when another writer has it and `blocking` is off."""
        try:
            fcntl.flock(self._turn, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def end_turn(self) -> None:
        """Let the next writer in."""
        fcntl.flock(self._turn, fcntl.LOCK_UN)

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""
        return self._translated(self._execute, statement, params)

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Take the turn and run `units` as one transaction; return each one's answer."""
        return certain(self.commit_each(units))

    def commit_each(self, units: Sequence[Unit]) -> list[Answer]:
        """Do the same; an answer that cannot be opened is an error in its place."""
        self.take_turn()
        try:
            return self.commit_in_turn(units)
        finally:
            self.end_turn()

    def commit_in_turn(self, units: Sequence[Unit]) -> list[Answer]:
        """Run `units` as one transaction, by a caller that has the turn."""
        answers = self._translated(self._transaction, units)
        return opened_answers(units, answers, self._dialect, self._codec)

    def close(self) -> None:
        """Close the connection; closing twice is harmless."""
        self._driver.close()
        if self._turn >= 0:
            os.close(self._turn)
        self._turn = -1

    def _transaction(self, units: Sequence[Unit]) -> list[Rows]:
        self._driver.execute("BEGIN IMMEDIATE")
        try:
            answers = [self._run(*unit.for_dialect(self._dialect)) for unit in units]
            self._driver.execute("COMMIT")
        except BaseException:
            if self._driver.in_transaction:
                self._driver.execute("ROLLBACK")
            raise
        return answers

    def _run(self, parts: Sequence[Part], answer: int) -> Rows:
        found: Rows = []
        for place, part in enumerate(parts):
            text = part.statement.compiled(self._dialect)
            cursor = self._driver.execute(text.text, text.bind(part.params, self._codec))
            rows = cursor.fetchall()
            if place == answer:
                found = rows
            if part.guard and not rows and cursor.rowcount < 1:
                return []
        return found

    def _execute(self, statement: Statement, params: Params) -> Rows:
        text = statement.compiled(self._dialect)
        rows = self._driver.execute(text.text, text.bind(params, self._codec)).fetchall()
        return text.opened(rows, self._codec)

    def _translated(self, function: Callable[..., T], *args: Any) -> T:
        try:
            return function(*args)
        except sqlite3.OperationalError as error:
            if (error.sqlite_errorcode & 0xFF) in _UNAVAILABLE:  # the primary code of an extended one
                raise JournalUnavailableError(str(error)) from error
            raise
