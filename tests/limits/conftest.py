"""A Valkey of this folder's own, for its tests empty it; a journal on SQLite, where asked on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from services import emptied, fake_redis, valkey

from polos.journal.database import Database
from polos.streaming.server import RedisServer


@pytest.fixture(scope="package", params=["valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A Valkey; tests of what the script says ask for fakeredis, too."""
    with valkey() if request.param == "valkey" else fake_redis() as url:
        yield RedisServer.from_url(f"{url}/0")


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Database:
    """An empty journal; tests whose SQL matters ask for both by `on_both`."""
    is_postgres = getattr(request, "param", "sqlite") == "postgresql"
    return emptied(request.getfixturevalue("postgres_journal" if is_postgres else "sqlite_journal"))
