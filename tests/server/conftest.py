from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import nursery
import pytest
from services import Postgres, emptied, sqlite_url
from stand import API, Stand, stand, wait_until

from polos.journal.database import Database
from polos.settings import Settings

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROJECT = "shop"


@pytest.fixture(scope="session")
def settings(valkey_url: str, postgres_server: Postgres) -> Settings:
    """On PostgreSQL, which is the stricter one: of texts, and of the size of numbers."""
    return Settings(
        database_url=postgres_server.create_database(),
        broker_url=f"{valkey_url}/9",
        redis_prefix="server-tests:",
        max_request_bytes=2_000_000,
        stream_keepalive_seconds=0.5,
        approval_secret="of the tests",
    )


@pytest.fixture(scope="session")
def server(settings: Settings) -> Iterator[Stand]:
    """The server that most tests share."""
    with stand(settings) as running:
        yield running


@pytest.fixture(scope="session")
def shop(server: Stand) -> httpx.Client:
    """A client of the project whose runs the worker executes."""
    return server.client(server.key(PROJECT))


@pytest.fixture(scope="session")
def worker(settings: Settings, shop: httpx.Client) -> Iterator[None]:
    """A worker process that offers what `served` defines."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POLOS_")}
    environment = {
        **kept,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}",
        "POLOS_DATABASE_URL": settings.database_url,
        "POLOS_BROKER_URL": settings.broker_url,
        "POLOS_REDIS_PREFIX": settings.redis_prefix,
        "POLOS_PROJECT_ID": PROJECT,
        "POLOS_PRELOAD_MODELS": "0",
        "POLOS_APPROVAL_SECRET": settings.approval_secret,
    }
    command = [sys.executable, "-m", "polos.cli.main", "worker", "served", "--loglevel", "warning"]
    process = nursery.start(command, cwd=ROOT, env=environment)
    try:
        wait_until(lambda: shop.get(f"{API}/workers/status").json()["has_workers"], seconds=60)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Database:
    """A journal without a server, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return Database(sqlite_url(tmp_path_factory.mktemp("journal")))
    server: Postgres = request.getfixturevalue("postgres_server")
    return Database(server.create_database())


@pytest.fixture
def empty_database(database: Database) -> Database:
    return emptied(database)
