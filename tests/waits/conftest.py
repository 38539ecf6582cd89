"""An empty journal on each kind of database, and workers on it whose waits are short."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from engine.fleet import SETTINGS, Fleet
from engine.fleet import fleet as open_fleet
from services import Postgres, emptied, sqlite_url

from polos.journal.database import Database

QUICK = replace(SETTINGS, wait_threshold_seconds=0.05, sweep_seconds=0.05)


@pytest.fixture(scope="session")
def waits_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return Database(sqlite_url(Path(tmp_path_factory.mktemp("waits"))))


@pytest.fixture(scope="session")
def waits_postgres(postgres_server: Postgres) -> Database:
    return Database(postgres_server.create_database())


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty journal, on SQLite and on PostgreSQL."""
    return emptied(request.getfixturevalue(f"waits_{request.param}"))


@pytest.fixture
async def sqlite_fleet(waits_sqlite: Database) -> AsyncIterator[Fleet]:
    """The same, for what takes long."""
    async with open_fleet(emptied(waits_sqlite), QUICK) as running:
        running.hire()
        yield running


@pytest.fixture
async def fleet(database: Database) -> AsyncIterator[Fleet]:
    """One worker that parks what waits for longer than 50 ms."""
    async with open_fleet(database, QUICK) as running:
        running.hire()
        yield running
