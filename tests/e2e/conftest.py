"""One program for the folder, with a worker in this process, on SQLite and where asked on PostgreSQL."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from models.servers import ModelServer, Recorder, model_server, recorder
from scripts import Folder
from sealed import unsealed

from polos import Polos
from polos.encryption import new_key
from polos.journal.database import Database
from polos.models.call import preload

HERE = Path(__file__).parent
QUICK = {
    "POLOS_SWEEP_SECONDS": "0.2",
    "POLOS_MODEL_RETRY_BASE_SECONDS": "0.01",
    "POLOS_AGENT_MAX_STEPS": "4",
    "POLOS_MODEL_LIMITS": "groq/one-a-minute=1rpm;groq/one-a-second=1rps;groq/one-a-day=0.0007rpm",
}
if "TESTS_ENCRYPTED" in os.environ:
    QUICK["POLOS_ENCRYPTION_KEYS"] = new_key("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The program and its tests share one loop."""
    marker = pytest.mark.asyncio(loop_scope="session")
    for item in items:
        if item.path.is_relative_to(HERE) and pytest_asyncio.is_async_test(item):
            item.add_marker(marker, append=False)


@pytest.fixture(scope="session")
def llmock() -> Iterator[ModelServer]:
    preload()  # here, for pytest's parsing of imports does not stand another thread that parses
    with model_server() as server:
        yield server


@pytest.fixture(scope="session", params=["sqlite"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """None for SQLite in the program's own folder; tests ask for PostgreSQL by `on_both`."""
    if request.param == "sqlite":
        return None
    return str(request.getfixturevalue("postgres_server").create_database(empty=True))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def polos(llmock: ModelServer, database_url: str | None) -> AsyncIterator[Polos]:
    """A running program."""
    home = Path(tempfile.mkdtemp(prefix="polos-e2e-"))
    with pytest.MonkeyPatch.context() as patch:
        given = {"POLOS_DATABASE_URL": database_url} if database_url else {}
        for name, value in {**llmock.environment, **QUICK, **given, "POLOS_HOME": str(home)}.items():
            patch.setenv(name, value)
        async with Polos() as program:
            yield program
    if "POLOS_ENCRYPTION_KEYS" in QUICK:
        assert unsealed(Database(database_url or f"sqlite:///{home / 'polos.db'}")) == []
    shutil.rmtree(home, ignore_errors=True)  # its server may still be ending


@pytest.fixture
def model(llmock: ModelServer) -> ModelServer:
    """The model's answers of one test."""
    llmock.reset()
    return llmock


@pytest.fixture
def told() -> Iterator[Recorder]:
    """A provider that answers as told, word for word."""
    with recorder() as running:
        yield running


@pytest.fixture
def folder(llmock: ModelServer) -> Iterator[Folder]:
    """An empty folder to start scripts in; all they leave behind ends with the test."""
    llmock.reset()
    with Folder.new({**llmock.environment, **QUICK}) as new:
        yield new
