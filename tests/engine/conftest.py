"""An empty journal on each kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fleet import Fleet
from fleet import fleet as open_fleet
from services import Postgres, emptied, sqlite_url

from polos.journal.database import Database


@pytest.fixture(scope="session")
def engine_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return Database(sqlite_url(Path(tmp_path_factory.mktemp("engine"))))


@pytest.fixture(scope="session")
def engine_postgres(postgres_server: Postgres) -> Database:
    return Database(postgres_server.create_database())


@pytest.fixture
def sqlite(engine_sqlite: Database) -> Database:
    return emptied(engine_sqlite)


@pytest.fixture
def postgresql(engine_postgres: Database) -> Database:
    return emptied(engine_postgres)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty journal, on SQLite and on PostgreSQL."""
    return request.getfixturevalue(request.param)


@pytest.fixture
async def fleet(sqlite: Database) -> AsyncIterator[Fleet]:
    """A fleet without workers, on SQLite."""
    async with open_fleet(sqlite) as running:
        yield running
