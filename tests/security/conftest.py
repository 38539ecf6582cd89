"""A worker process, and those who can reach its broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crowd import Crowd, crowd_in


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[Crowd]:
    with crowd_in(tmp_path_factory.mktemp("crowd"), valkey_url) as crowd:
        yield crowd
