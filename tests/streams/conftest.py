"""One model, one server for streams, one worker; tests that hurt them have their own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from scripts import ROOT, Folder
from services import valkey
from studio import QUICK, Studio
from talker import Talker, talker

from polos import PolosClient
from polos.settings import Settings

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def valkey_url() -> Iterator[str]:
    """One of its own: tests empty it."""
    with valkey() as url:
        yield url


@pytest.fixture(scope="session")
def model() -> Iterator[Talker]:
    with talker() as running:
        yield running


@pytest.fixture(scope="module")
def studio_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studio")


@pytest_asyncio.fixture(loop_scope="function")
async def studio(make_studio: Callable[[], Studio]) -> AsyncIterator[Studio]:
    """The place of the module, with a client of the test's own."""
    place = make_studio()
    yield place
    await place.client.close()


@pytest.fixture(scope="module")
def make_studio(
    studio_folder: Path,
    model: Talker,
    valkey_url: str,
    worker_is_shared: bool,
    journal_url: str,
    preloads: str,
) -> Iterator[Callable[[], Studio]]:
    environment = {
        **QUICK,
        "TALKER_URL": model.url,
        "POLOS_HOME": str(studio_folder / "home"),
        "POLOS_DATABASE_URL": journal_url,
        "POLOS_BROKER_URL": valkey_url,
    }
    folder = Folder(studio_folder, {**environment, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}"})

    def make() -> Studio:
        client = PolosClient(settings=Settings.from_environment(environment))
        return Studio(folder, model, client, valkey_url)

    try:
        if worker_is_shared:
            make().worker(POLOS_PRELOAD_MODELS=preloads)
        yield make
    finally:
        folder.end()


@pytest.fixture(scope="module")
def journal_url(request: pytest.FixtureRequest, studio_folder: Path) -> str:
    """SQLite, or PostgreSQL where a test asks for it by an indirect parameter."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite:///{studio_folder}/journal.db"
    return str(request.getfixturevalue("postgres_server").create_database())


@pytest.fixture(scope="module")
def preloads() -> str:
    """Whether the shared worker loads LiteLLM when it starts."""
    return "1"


@pytest.fixture(scope="module")
def worker_is_shared() -> bool:
    """Whether the tests of the module share one worker."""
    return True
