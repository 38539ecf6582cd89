"""A Valkey of this folder's own, for its tests empty it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from services import valkey

from polos.streaming.server import RedisServer


@pytest.fixture(scope="package")
def server() -> Iterator[RedisServer]:
    with valkey() as url:
        yield RedisServer.from_url(f"{url}/0")
