"""Where the journal is and how to reach it: one URL, SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sqlalchemy import URL, Dialect, make_url
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import ArgumentError

from polos.encryption import PLAIN, Codec
from polos.errors import ConfigurationError, JournalUnavailableError
from polos.journal.postgres import PostgresConnection
from polos.journal.postgres_sessions import conninfo
from polos.journal.sqlite import SqliteConnection
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.settings import hide_password

# What libpq's text, all there is of it at the start, says when the server is there but lets nobody in.
_REFUSALS = (
    "authentication failed",
    "no password supplied",
    "FATAL:  role",
    "FATAL:  database",
    "pg_hba.conf",
    "does not support SSL",
    "certificate verify failed",
)


class Connection(Protocol):
    """One blocking connection to the journal, used by one thread at a time."""

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Run `units` as one transaction; return each one's answer."""

    def close(self) -> None:
        """Close the connection; closing twice is harmless."""


class Database:
    """The database of one URL. Holds no connection; `connect()` opens one.

    Attributes:
        codec: How values are stored: as they are, or encrypted.
        has_schema: Whether it came with the schema of this version, and needs no look.
    """

    has_schema = False

    def __init__(
        self,
        url: str,
        *,
        sqlite_sync: str = "normal",
        codec: Codec = PLAIN,
        variable: str = "POLOS_DATABASE_URL",
    ) -> None:
        self.variable = variable
        self.url = _parsed(url, variable)
        self.sqlite_sync = sqlite_sync
        self.codec = codec

    @property
    def is_sqlite(self) -> bool:
        """Whether the journal is an SQLite file."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return Path(self.url.database or "")

    @property
    def dialect(self) -> Dialect:
        """The dialect statements are compiled for."""
        if self.is_sqlite:
            return SQLiteDialect_pysqlite(paramstyle="qmark")
        return PGDialect_psycopg()  # type: ignore[no-untyped-call]

    @property
    def conninfo(self) -> str:
        """The PostgreSQL connection string."""
        return conninfo(self.url)

    @property
    def lock_folder(self) -> Path:
        """Where worker locks lie: one host, beside the SQLite file."""
        return self.path.with_suffix(".workers")

    def connect(self, *, impatient: bool = False) -> Connection:
        """Open a blocking connection; one that is `impatient` is given up sooner when nothing is heard.

        Raises:
            JournalUnavailableError: It cannot be reached; names the URL and the variable to check.
        """
        try:
            if self.is_sqlite:
                return self.open_sqlite()
            info = conninfo(self.url, impatient=impatient)
            return PostgresConnection(info, self.dialect, self.codec)
        except JournalUnavailableError as error:
            raise self.unreachable(error) from error

    def open_sqlite(self) -> SqliteConnection:
        """Open a connection to an SQLite file."""
        return SqliteConnection(self.path, self.dialect, sync=self.sqlite_sync, codec=self.codec)

    def unreachable(self, error: Exception) -> JournalUnavailableError:
        """Return the error that tells a user what is wrong with the database."""
        if any(sign in str(error) for sign in _REFUSALS):
            return JournalUnavailableError(
                f"The database {self} cannot be used as it is configured ({error}). Correct user, password, "
                f"name or TLS in {self.variable}."
            )
        return JournalUnavailableError(
            f"The database {self} does not answer ({error}). "
            f"Check that it runs and that {self.variable} is right."
        )

    def __str__(self) -> str:
        return hide_password(self.url.render_as_string(hide_password=False))


def _parsed(text: str, variable: str) -> URL:
    if text.startswith("postgres://"):
        text = text.replace("postgres://", "postgresql://", 1)
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise ConfigurationError(
            f"{variable}={hide_password(text)!r} is not a database URL; write "
            "'postgresql://user:password@host/name' or 'sqlite:////absolute/path.db'"
        ) from error
    if url.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ConfigurationError(
            f"{variable} names {url.get_backend_name()!r}; the journal needs postgresql or sqlite"
        )
    if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
        raise ConfigurationError(
            f"{variable}: an in-memory SQLite cannot be shared by processes; give it a file, "
            "such as 'sqlite:////absolute/path.db'"
        )
    return url
