"""Puts this folder on the path, so that every test can import `services`, and starts each server once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from services import Postgres, postgres, valkey


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    with valkey() as url:
        yield url
