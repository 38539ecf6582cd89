"""Counts the journal's statements of this process by name, by wrapping the connections polos opens.

Groups: `engine` is what the event loop of a worker does, `blocking` the connections of threads: those of the
client here, those of heartbeat and sweeper in a worker.
"""

from __future__ import annotations

import pkgutil
from collections import Counter
from collections.abc import Sequence
from typing import Any

import polos.journal
from polos.journal.postgres import AsyncPostgresConnection, PostgresConnection
from polos.journal.sqlite import SqliteConnection
from polos.journal.statements import Statement
from polos.journal.writer import SqliteBackend

ENGINE = "engine"
BLOCKING = "blocking"
Commands = Sequence[tuple[str, Any]]
_FRAME = {"BEGIN", "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"}  # frames of a transaction, counted apart


class Ledger:
    """Counts of this process. Each group has one writer at a time, or counts that nobody relies on."""

    def __init__(self) -> None:
        self._texts: dict[str, Counter[str]] = {ENGINE: Counter(), BLOCKING: Counter()}
        self._round_trips: dict[str, int] = {ENGINE: 0, BLOCKING: 0}
        self._transactions: dict[str, int] = {ENGINE: 0, BLOCKING: 0}

    def statement(self, group: str, text: str) -> None:
        """Count a statement that is sent alone."""
        self._texts[group][text] += 1
        if text == "COMMIT":
            self._transactions[group] += 1

    def batch(self, group: str, commands: Commands) -> None:
        """Count what goes to a server in one round trip, as one transaction."""
        self._round_trips[group] += 1
        self._transactions[group] += 1
        self._texts[group].update(text for text, _ in commands)

    def read(self, group: str, text: str) -> None:
        """Count a SELECT."""
        self._round_trips[group] += 1
        self._texts[group][text] += 1

    def counts(self) -> dict[str, int]:
        """Return all counts so far: `{group}.transactions`, `{group}.round_trips`, `{group}:{statement}`."""
        names = _names()
        found: Counter[str] = Counter()
        for group, texts in self._texts.items():
            found[f"{group}.transactions"] = self._transactions[group]
            found[f"{group}.round_trips"] = self._round_trips[group]
            for text, times in list(texts.items()):
                if text not in _FRAME:
                    found[f"{group}:{names.get(text, text.split('(')[0][:40])}"] += times
        return dict(found)


class _CountedDriver:
    """An sqlite3 connection that counts what it executes."""

    def __init__(self, driver: Any, ledger: Ledger) -> None:
        self.group = BLOCKING
        self._driver = driver
        self._ledger = ledger

    def execute(self, text: str, *params: Any) -> Any:
        self._ledger.statement(self.group, text)
        return self._driver.execute(text, *params)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)


def install() -> Ledger:
    """Count all journal connections that this process opens from now on."""
    ledger = Ledger()
    _count_sqlite(ledger)
    _count_postgres(ledger)
    return ledger


def _count_sqlite(ledger: Ledger) -> None:
    open_connection, open_backend = SqliteConnection.__init__, SqliteBackend.__init__

    def counted_connection(self: Any, *args: Any, **kw: Any) -> None:
        open_connection(self, *args, **kw)
        self._driver = _CountedDriver(self._driver, ledger)

    def counted_backend(self: Any, *args: Any, **kw: Any) -> None:
        open_backend(self, *args, **kw)
        for connection in (self._writes, self._reads):
            connection._driver.group = ENGINE

    SqliteConnection.__init__ = counted_connection  # type: ignore[method-assign]
    SqliteBackend.__init__ = counted_backend  # type: ignore[method-assign]


def _count_postgres(ledger: Ledger) -> None:
    _count_reads(ledger, AsyncPostgresConnection, ENGINE)
    _count_reads(ledger, PostgresConnection, BLOCKING)
    commit_async, commit_blocking = AsyncPostgresConnection._commit, PostgresConnection._commit

    def counted_async(driver: Any, wanted: Commands, answers: Any) -> Any:
        ledger.batch(ENGINE, wanted)
        return commit_async(driver, wanted, answers)

    def counted_blocking(self: Any, wanted: Commands, answers: Any) -> Any:
        ledger.batch(BLOCKING, wanted)
        return commit_blocking(self, wanted, answers)

    AsyncPostgresConnection._commit = staticmethod(counted_async)  # type: ignore[method-assign]
    PostgresConnection._commit = counted_blocking  # type: ignore[method-assign]


def _count_reads(ledger: Ledger, connection: Any, group: str) -> None:
    read = connection.read

    def counted(self: Any, statement: Statement, params: Any) -> Any:
        ledger.read(group, statement.compiled(self._dialect).text)
        return read(self, statement, params)

    connection.read = counted


def _names() -> dict[str, str]:
    """Return the names of the journal's statements by their text."""
    names: dict[str, str] = {}
    for found in pkgutil.iter_modules(polos.journal.__path__):
        module = getattr(polos.journal, found.name, None)
        for name, value in vars(module).items() if module else ():
            if isinstance(value, Statement):
                for compiled in value._compiled.values():
                    names.setdefault(compiled.text, f"{found.name}.{name.strip('_').lower()}")
    return names
