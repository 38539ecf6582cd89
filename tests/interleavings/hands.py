"""Connections driven by hand: a transaction stays open while another connection works or waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Protocol

from polos.journal.database import Database
from polos.journal.postgres import PostgresConnection, commands
from polos.journal.sqlite import SqliteConnection
from polos.journal.statements import Rows, Statement, Unit

PATIENCE_SECONDS = 60.0


class Hand(Protocol):
    """One connection of one process."""

    def commit(self, *units: Unit) -> list[Rows]:
        """Commit units as one batch."""

    def begin(self, *units: Unit) -> list[Rows]:
        """Run units in a transaction that stays open."""

    def end(self) -> None:
        """Commit what `begin` opened."""

    def abandon(self) -> None:
        """Roll back what was begun."""

    def read(self, statement: Statement, **params: Any) -> Rows:
        """Return the rows of one SELECT."""

    def waits(self) -> bool:
        """Whether another connection's transaction makes this one wait."""

    def close(self) -> None:
        """Give the connection up."""


def hand(database: Database) -> Hand:
    """Return a new connection of the kind that `database` needs."""
    return SqliteHand(database) if database.is_sqlite else PostgresHand(database)


class PostgresHand:
    def __init__(self, database: Database) -> None:
        self._dialect = database.dialect
        self._connection = PostgresConnection(database.conninfo, database.dialect)
        self._observer = PostgresConnection(database.conninfo, database.dialect)
        self._pid = self._connection.driver.info.backend_pid

    def commit(self, *units: Unit) -> list[Rows]:
        return self._connection.commit(units)

    def begin(self, *units: Unit) -> list[Rows]:
        wanted, answers = commands(units, self._dialect)
        if len(wanted) == 1:
            wanted, answers = [("BEGIN", None), *wanted], [place + 1 for place in answers]
        else:
            wanted = wanted[:-1]  # not the COMMIT
        found: list[Rows] = []
        for command in wanted:
            cursor = self._connection.driver.execute(*command)
            found.append(cursor.fetchall() if cursor.description else [])
        return [found[place] for place in answers]

    def end(self) -> None:
        self._connection.driver.execute("COMMIT")

    def abandon(self) -> None:
        self._connection.driver.execute("ROLLBACK")

    def read(self, statement: Statement, **params: Any) -> Rows:
        return self._connection.read(statement, params)

    def waits(self) -> bool:
        [(blockers,)] = self._observer.driver.execute("SELECT cardinality(pg_blocking_pids(%s))", [self._pid])
        return bool(blockers)

    def close(self) -> None:
        self._connection.close()
        self._observer.close()


class SqliteHand:
    def __init__(self, database: Database) -> None:
        self._dialect = database.dialect
        self._connection = _WatchedConnection(database.path, database.dialect)

    def commit(self, *units: Unit) -> list[Rows]:
        return self._connection.commit(units)

    def begin(self, *units: Unit) -> list[Rows]:
        self._connection.take_turn()
        self._connection._driver.execute("BEGIN IMMEDIATE")
        return [self._connection._run(*unit.for_dialect(self._dialect)) for unit in units]

    def end(self) -> None:
        self._connection._driver.execute("COMMIT")
        self._connection.end_turn()

    def abandon(self) -> None:
        self._connection._driver.execute("ROLLBACK")
        self._connection.end_turn()

    def read(self, statement: Statement, **params: Any) -> Rows:
        return self._connection.read(statement, params)

    def waits(self) -> bool:
        return self._connection.waiting.is_set()

    def close(self) -> None:
        self._connection.close()


class _WatchedConnection(SqliteConnection):
    """A connection that says when it waits for its turn to write."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waiting = threading.Event()

    def take_turn(self, *, blocking: bool = True) -> bool:
        if super().take_turn(blocking=False):
            return True
        self.waiting.set()
        try:
            return super().take_turn(blocking=blocking)
        finally:
            self.waiting.clear()


class Together:
    """Work of other connections, begun in threads while a transaction is open."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[], Any]) -> Future[Any]:
        """Do `work` in a thread."""
        done: Future[Any] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()
        return done

    def commit_behind(self, waiter: Hand, *units: Unit) -> Future[list[Rows]]:
        """Begin to commit `units` and return once that waits for an open transaction."""
        done: Future[list[Rows]] = self.start(lambda: waiter.commit(*units))
        wait_until(lambda: waiter.waits() or done.done(), "the commit neither waited nor ended")
        assert not done.done(), f"it did not wait for the open transaction: {done.result()!r}"
        return done

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), "a connection still waits"


def result(done: Future[list[Rows]]) -> Rows:
    """Return the answer of the only unit of a commit."""
    [rows] = done.result(PATIENCE_SECONDS)
    return rows


def wait_until(condition: Callable[[], object], problem: str) -> None:
    """Return once `condition` holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, problem
        time.sleep(0.002)


def close_all(hands: Sequence[Hand]) -> None:
    for opened in hands:
        with suppress(Exception):  # its transaction may be open: the connection ends it
            opened.close()
