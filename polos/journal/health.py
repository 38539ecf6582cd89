"""A look at the database itself: version, clock, whether it can be written, what stands between it and us."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Text, func, literal, select, update

from polos.journal import schema
from polos.journal.database import Connection, Database
from polos.journal.postgres import PostgresConnection
from polos.journal.statements import Part, Statement, Unit
from polos.journal.workers import READ_CLOCK, WORKERS, W

_SQLITE_VERSION = Statement(select(func.sqlite_version(type_=Text)))
_POSTGRES_VERSION = Statement(select(func.current_setting("server_version", type_=Text)))
# Changes no row, and is refused by a database or a role that may not write.
_TOUCH_NOTHING = Statement(update(WORKERS).where(W.id == literal("")).values(draining=W.draining))


@dataclass(frozen=True)
class Answer:
    """What a database that answers says of itself.

    Attributes:
        revision: Of its schema; None when it is empty.
        latency_seconds: Of one read.
        clock_ahead_seconds: How far its clock is ahead of this machine's.
        pooled: Whether a connection pooler stands in between, where no worker can hold a lock.
    """

    version: str
    revision: str | None
    latency_seconds: float
    clock_ahead_seconds: float
    pooled: bool


def ask(database: Database) -> Answer:
    """Return what `database` says; changes nothing.

    Raises:
        JournalUnavailableError: It does not answer.
    """
    connection = database.connect()
    try:
        [[version]] = connection.read(_SQLITE_VERSION if database.is_sqlite else _POSTGRES_VERSION, {})
        latency, ahead = _clock(connection)
        return Answer(
            version=f"{'SQLite' if database.is_sqlite else 'PostgreSQL'} {version}",
            revision=schema.current_version(database),
            latency_seconds=latency,
            clock_ahead_seconds=ahead,
            pooled=isinstance(connection, PostgresConnection) and connection.is_pooled,
        )
    finally:
        connection.close()


def try_to_write(database: Database) -> None:
    """Return if the tables can be written; changes nothing.

    Raises:
        JournalUnavailableError: The database or the disk refuses to write.
        psycopg or sqlite3 error: This role may not write.
    """
    connection = database.connect()
    try:
        connection.commit([Unit((Part(_TOUCH_NOTHING, {}, guard=False),), ())])
    finally:
        connection.close()


def _clock(connection: Connection) -> tuple[float, float]:
    """Return how long a read takes, and how far the database's clock is ahead of ours."""
    began, sent = time.time(), time.monotonic()
    [[moment, _]] = connection.read(READ_CLOCK, {})
    took = time.monotonic() - sent
    return took, float(moment) - (began + took / 2)
