"""Where the commands find the journal: the configured database, else the one of the folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from polos.embedded.home import Home
from polos.encryption import codec_of
from polos.errors import ConfigurationError
from polos.journal import schema
from polos.journal.database import Connection, Database
from polos.settings import Settings


def find_database(settings: Settings) -> Database:
    """Return the database that workers and clients with these settings use; creates nothing."""
    home = Home(settings.home.expanduser().resolve())
    return Database(
        settings.database_url or home.database_url,
        sqlite_sync=settings.sqlite_sync,
        codec=codec_of(settings.encryption_keys),
    )


@contextmanager
def reading() -> Iterator[Connection]:
    """Open the journal of this environment, to read from it.

    Raises:
        ConfigurationError: There is none, or its schema is not the one of this version.
        JournalUnavailableError: The database does not answer.
    """
    database = find_database(Settings.from_environment())
    if database.is_sqlite and not database.path.exists():
        raise ConfigurationError(
            f"There is no database at {str(database.path)!r}: nothing ran here yet. Go to the folder of your "
            "program, or set POLOS_HOME or POLOS_DATABASE_URL to what its workers use."
        )
    schema.check(database)
    connection = database.connect()
    try:
        yield connection
    finally:
        connection.close()
