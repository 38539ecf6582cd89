"""One worker process on SQLite and Valkey, and what it writes to its log."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import nursery
import pytest
from crowd import Crowd
from services import sqlite_url

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[Crowd]:
    """A worker that offers what `secured` defines, and those who can reach its broker."""
    folder = tmp_path_factory.mktemp("crowd")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POLOS_")}
    environment = {
        **kept,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}",
        "POLOS_DATABASE_URL": sqlite_url(folder),
        "POLOS_BROKER_URL": f"{valkey_url}/11",
        "POLOS_REDIS_PREFIX": "security:",
        "POLOS_PRELOAD_MODELS": "0",
        "LEDGER": str(folder / "ledger"),
    }
    command = [sys.executable, "-m", "polos.cli.main", "worker", "secured", "--loglevel", "info"]
    with (folder / "log").open("w") as log:
        worker = nursery.start(command, cwd=folder, env=environment, stdout=log, stderr=log)
    crowd = Crowd(folder, environment, worker)
    try:
        crowd.wait_for(" ready.")
        yield crowd
    finally:
        crowd.close()
        worker.kill()
        worker.wait()
