"""A journal on each kind of database, and connections driven by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hands import Together
from scenes import Scene
from services import Postgres, sqlite_url

from polos.journal.database import Database


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A journal of this test alone, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return Database(sqlite_url(tmp_path))
    server: Postgres = request.getfixturevalue("postgres_server")
    return Database(server.create_database())


@pytest.fixture
def scene(database: Database) -> Iterator[Scene]:
    """Runs and turns in that journal."""
    acting = Scene(database)
    yield acting
    acting.close()


@pytest.fixture
def together() -> Iterator[Together]:
    threads = Together()
    yield threads
    threads.join()
