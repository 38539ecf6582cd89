"""A model server for the folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from models.servers import ModelServer, model_server


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as running:
        yield running


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder for POLOS_HOME, with a short path: sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="polos-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "home"
