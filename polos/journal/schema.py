"""The version of the schema: created when empty, checked at start, moved forward by `polos db upgrade`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, inspect
from sqlalchemy.exc import DBAPIError, OperationalError

from polos.errors import JournalUnavailableError, SchemaVersionError
from polos.journal.database import Database

HEAD = "0008"  # the revision this version of polos needs
OLDEST_BESIDE = "0007"  # the oldest revision whose code goes on beside `HEAD`
VERSION_TABLE = "polos_schema"
_MIGRATIONS = Path(__file__).with_name("migrations")
OLDEST_COLUMN = "oldest_beside"
_UPGRADE_LOCK = 0x706F6C02  # advisory lock: one process upgrades
LOCK_SECONDS = 5.0  # a migration waits for a table that is in use
LOCK_PAUSE_SECONDS = 1.0  # then lets those go first who wait behind it
LOCK_ATTEMPTS = 12
logger = logging.getLogger("polos.journal")
_LOCKED = frozenset({"55P03", "40P01"})  # lock_not_available, deadlock_detected


def prepare(database: Database) -> None:
    """Create the schema in an empty database; else check that it is the one this version needs.

    An SQLite journal of ours is upgraded at once: it belongs to one folder. A PostgreSQL one is shared with
    other versions, so a person decides. One that is newer will do where it was written down, when it was
    upgraded, that code of this version goes on beside it.

    Raises:
        SchemaVersionError: It is older (run ``polos db upgrade``) or too new (upgrade polos).
        JournalUnavailableError: The database does not answer.
    """
    if database.has_schema:
        return
    found = current_version(database)
    if found is None or (found != HEAD and database.is_sqlite and found in known_versions()):
        upgrade(database)
    else:
        _check_found(database, found)


def check(database: Database) -> None:
    """Return if the schema is one that this version of polos can use; changes nothing.

    Raises:
        SchemaVersionError: It is missing, older or too new.
        JournalUnavailableError: The database does not answer.
    """
    found = current_version(database)
    if found is None:
        raise SchemaVersionError(
            f"{database} has no schema yet; run 'polos db upgrade', or start a worker, which creates it."
        )
    _check_found(database, found)


def _check_found(database: Database, found: str) -> None:
    if found == HEAD:
        return
    if found in known_versions() or not _serves_older(database):
        raise _wrong_version(database, found)
    logger.warning(
        "The schema of %s (revision %s) is newer than this version of polos knows (%s). It may go on for the "
        "time of an upgrade; upgrade this process soon",
        database,
        found,
        HEAD,
    )


def _serves_older(database: Database) -> bool:
    """Whether code of this version goes on beside a newer schema, as whoever upgraded it has written down."""
    with connection(database) as opened:
        columns = {column["name"] for column in inspect(opened).get_columns(VERSION_TABLE)}
        if OLDEST_COLUMN not in columns:
            return False
        query = f"SELECT {OLDEST_COLUMN} FROM {VERSION_TABLE}"  # noqa: S608 - ours
        row = opened.exec_driver_sql(query).first()
    return row is not None and row[0] is not None and str(row[0]) <= HEAD


def current_version(database: Database) -> str | None:
    """Return the revision of the database, None when it is empty."""
    if database.is_sqlite and not database.path.exists():
        return None  # connecting would create it
    with connection(database) as opened:
        return _version(opened)


def known_versions() -> list[str]:
    """Return the revisions this version of polos knows, oldest first."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - slow, and rarely needed

    scripts = ScriptDirectory(str(_MIGRATIONS)).walk_revisions()
    return [script.revision for script in scripts][::-1]


def upgrade(database: Database, *, to: str = HEAD) -> str | None:
    """Move the database to a revision; return the one it had. Several processes may call it at once.

    All of it is one transaction: a process that dies on the way has changed nothing. Workers may go on
    meanwhile; where they and the migration wait for each other, it begins anew.

    Raises:
        SchemaVersionError: The database, or the revision, is newer than this version of polos.
        JournalUnavailableError: It does not answer, or others keep its tables locked.
    """
    for _ in range(LOCK_ATTEMPTS):
        try:
            return _upgrade(database, to)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in _LOCKED:
                raise
            locked = error
        time.sleep(LOCK_PAUSE_SECONDS)
    raise JournalUnavailableError(
        f"{database} was not upgraded: others held its tables for too long ({locked.orig}). End what holds "
        "long transactions, such as a dump of the database or an open psql, and repeat 'polos db upgrade'."
    ) from locked


def _upgrade(database: Database, to: str) -> str | None:
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of its parts while it is imported
    from alembic import command  # noqa: PLC0415 - slow, and rarely needed
    from alembic.config import Config  # noqa: PLC0415 - slow, and rarely needed

    with connection(database) as opened:
        _lock(opened, database)
        found = _version(opened)
        if found is not None and found not in known_versions():
            raise _wrong_version(database, found)
        if to not in known_versions():
            raise _wrong_version(database, to)
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = opened
        command.upgrade(config, to)
        _write_oldest(opened, to)
        opened.commit()
    return found


def _write_oldest(opened: Connection, to: str) -> None:
    """Write down whose code goes on beside this schema, for processes of versions that cannot know."""
    columns = {column["name"] for column in inspect(opened).get_columns(VERSION_TABLE)}
    if OLDEST_COLUMN not in columns:
        opened.exec_driver_sql(f"ALTER TABLE {VERSION_TABLE} ADD COLUMN {OLDEST_COLUMN} VARCHAR(32)")
    change = f"UPDATE {VERSION_TABLE} SET {OLDEST_COLUMN} = '{min(OLDEST_BESIDE, to)}'"  # noqa: S608 - ours
    opened.exec_driver_sql(change)


def _wrong_version(database: Database, found: str) -> SchemaVersionError:
    if found in known_versions():
        advice = (
            "is older than this version of polos needs; run 'polos db upgrade'; workers may go on meanwhile"
        )
    else:
        advice = "is newer than this version of polos knows; upgrade the polos package"
    return SchemaVersionError(f"The schema of {database} (revision {found!r}, wanted {HEAD!r}) {advice}.")


def _version(opened: Connection) -> str | None:
    if not inspect(opened).has_table(VERSION_TABLE):
        return None
    row = opened.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").first()  # noqa: S608 - ours
    return None if row is None else str(row[0])


def _lock(opened: Connection, database: Database) -> None:
    if database.is_sqlite:
        opened.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        opened.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})")
        # Whoever waits for a table keeps all others waiting, so better not for long.
        opened.exec_driver_sql(f"SET LOCAL lock_timeout = {int(LOCK_SECONDS * 1000)}")


@contextmanager
def connection(database: Database) -> Iterator[Connection]:
    """Open a SQLAlchemy connection to a database of whatever revision.

    Raises:
        JournalUnavailableError: It cannot be reached.
    """
    engine = _engine(database)
    try:
        opened = engine.connect()
    except DBAPIError as error:
        engine.dispose()
        raise database.unreachable(error.orig if isinstance(error.orig, Exception) else error) from error
    try:
        yield opened
    finally:
        opened.close()
        engine.dispose()


def _engine(database: Database) -> Engine:
    if not database.is_sqlite:
        url = database.url.set(drivername="postgresql+psycopg")
        return create_engine(url, connect_args={"connect_timeout": 5, "prepare_threshold": None})
    try:
        database.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise database.unreachable(error) from error
    return create_engine(database.url, connect_args={"timeout": 30, "isolation_level": None})
