"""The version of the schema: created when empty, checked at start, moved forward by `polos db upgrade`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, inspect
from sqlalchemy.exc import DBAPIError

from polos.errors import SchemaVersionError
from polos.journal.database import Database

HEAD = "0008"  # the revision this version of polos needs
VERSION_TABLE = "polos_schema"
_MIGRATIONS = Path(__file__).with_name("migrations")
_UPGRADE_LOCK = 0x706F6C02  # advisory lock: one process upgrades


def prepare(database: Database) -> None:
    """Create the schema in an empty database; else check that it is the one this version needs.

    An SQLite journal of ours is upgraded at once: it belongs to one folder. A PostgreSQL one is shared with
    other versions, so a person decides.

    Raises:
        SchemaVersionError: It is older (run ``polos db upgrade``) or newer (upgrade polos).
        JournalUnavailableError: The database does not answer.
    """
    if database.has_schema:
        return
    found = current_version(database)
    if found == HEAD:
        return
    if found is None or (database.is_sqlite and found in known_versions()):
        upgrade(database)
    else:
        raise _wrong_version(database, found)


def check(database: Database) -> None:
    """Return if the schema is the one this version of polos needs; changes nothing.

    Raises:
        SchemaVersionError: It is missing, older or newer.
        JournalUnavailableError: The database does not answer.
    """
    found = current_version(database)
    if found is None:
        raise SchemaVersionError(
            f"{database} has no schema yet; run 'polos db upgrade', or start a worker, which creates it."
        )
    if found != HEAD:
        raise _wrong_version(database, found)


def current_version(database: Database) -> str | None:
    """Return the revision of the database, None when it is empty."""
    if database.is_sqlite and not database.path.exists():
        return None  # connecting would create it
    with _connection(database) as connection:
        return _version(connection)


def known_versions() -> list[str]:
    """Return the revisions this version of polos knows, oldest first."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - slow, and rarely needed

    scripts = ScriptDirectory(str(_MIGRATIONS)).walk_revisions()
    return [script.revision for script in scripts][::-1]


def upgrade(database: Database) -> str | None:
    """Move the database to `HEAD`; return the revision it had. Several processes may call it at once.

    Raises:
        SchemaVersionError: The database is newer than this version of polos.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of its parts while it is imported
    from alembic import command  # noqa: PLC0415 - slow, and rarely needed
    from alembic.config import Config  # noqa: PLC0415 - slow, and rarely needed

    with _connection(database) as connection:
        _lock(connection, database)
        found = _version(connection)
        if found is not None and found not in known_versions():
            raise _wrong_version(database, found)
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)
        connection.commit()
    return found


def _wrong_version(database: Database, found: str) -> SchemaVersionError:
    if found in known_versions():
        advice = "is older than this version of polos needs; stop the workers and run 'polos db upgrade'"
    else:
        advice = "is newer than this version of polos knows; upgrade the polos package"
    return SchemaVersionError(f"The schema of {database} (revision {found!r}, wanted {HEAD!r}) {advice}.")


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    row = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").first()
    return None if row is None else str(row[0])


def _lock(connection: Connection, database: Database) -> None:
    if database.is_sqlite:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})")


class _connection:  # noqa: N801 - reads as a function
    """A SQLAlchemy connection for schema work; translates an unreachable database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> Connection:
        database = self._database
        if database.is_sqlite:
            try:
                database.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise database.unreachable(error) from error
            self._engine = create_engine(database.url, connect_args={"timeout": 30, "isolation_level": None})
        else:
            self._engine = create_engine(
                database.url.set(drivername="postgresql+psycopg"), connect_args={"connect_timeout": 5}
            )
        try:
            self._opened = self._engine.connect()
        except DBAPIError as error:
            self._engine.dispose()
            raise database.unreachable(error.orig if isinstance(error.orig, Exception) else error) from error
        return self._opened

    def __exit__(self, *_: Any) -> None:
        self._opened.close()
        self._engine.dispose()
