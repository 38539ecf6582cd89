from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from benches import Bench, open_bench
from services import Postgres, emptied, sqlite_url
from written import Written, without_settings

from polos.journal.database import Database


@pytest.fixture
def bench() -> Iterator[Bench]:
    with open_bench() as bench:
        yield bench


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Database:
    """A journal of the commands' tests, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return Database(sqlite_url(tmp_path_factory.mktemp("journal")))
    server: Postgres = request.getfixturevalue("postgres_server")
    return Database(server.create_database())


@pytest.fixture
def journal(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """An empty journal that the commands read, in an empty folder."""
    without_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("POLOS_DATABASE_URL", database.url.render_as_string(hide_password=False))
    written = Written(emptied(database))
    yield written
    written.close()
