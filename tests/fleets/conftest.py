"""A folder with the program of these tests, the journal its workers share, and the model they ask."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from models.servers import ModelServer, model_server
from scripts import Folder
from worker_fleet import Fleet

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def model_of_fleets() -> Iterator[ModelServer]:
    with model_server() as server:
        yield server


@pytest.fixture
def fleet(request: pytest.FixtureRequest, model_of_fleets: ModelServer) -> Iterator[Fleet]:
    """Nothing runs yet; ask for PostgreSQL with an indirect parameter ``"postgresql"``."""
    model_of_fleets.reset()
    database = getattr(request, "param", "sqlite")
    settings = {**model_of_fleets.environment, "POLOS_EMBEDDED_WORKER": "0", "POLOS_PRELOAD_MODELS": "0"}
    if database == "postgresql":
        settings["POLOS_DATABASE_URL"] = request.getfixturevalue("postgres_server").create_database()
    with Folder.new(settings) as folder:
        shutil.copy(HERE / "fleet_program.py", folder.path)
        yield Fleet(folder)
