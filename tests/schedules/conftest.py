"""A journal on each kind of database, and sweepers on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clockwork import Clockwork
from services import Postgres, emptied, sqlite_url

from polos.journal.database import Database


@pytest.fixture(scope="session")
def sqlite_journal(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return Database(sqlite_url(Path(tmp_path_factory.mktemp("journal"))))


@pytest.fixture(scope="session")
def postgres_journal(postgres_server: Postgres) -> Database:
    return Database(postgres_server.create_database())


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty journal, on SQLite and on PostgreSQL."""
    name = "sqlite_journal" if request.param == "sqlite" else "postgres_journal"
    return emptied(request.getfixturevalue(name))


@pytest.fixture
def clockwork(database: Database) -> Iterator[Clockwork]:
    made = Clockwork(database)
    yield made
    made.close()
