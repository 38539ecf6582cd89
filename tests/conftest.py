"""Puts this folder on the path, so that every test can import `services`, and starts each server once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from services import Postgres, postgres, valkey


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests/e2e last: it keeps a worker in this process, and Celery has room for one at a time."""
    items.sort(key=lambda item: "e2e" in item.path.parts)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    with valkey() as url:
        yield url
