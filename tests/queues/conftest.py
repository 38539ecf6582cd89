"""An empty journal on each kind of database, and whoever admits there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from counter import Counter
from services import Postgres, emptied, sqlite_url

from polos.journal.database import Database


@pytest.fixture(scope="session")
def queue_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return Database(sqlite_url(Path(tmp_path_factory.mktemp("queues"))))


@pytest.fixture(scope="session")
def queue_postgres(postgres_server: Postgres) -> Database:
    return Database(postgres_server.create_database())


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty journal, on SQLite and on PostgreSQL."""
    return emptied(request.getfixturevalue(f"queue_{request.param}"))


@pytest.fixture
def counter(database: Database) -> Iterator[Counter]:
    """Runs of one deployment, with one live worker that offers `flow`."""
    serving = Counter(database)
    yield serving
    serving.close()
