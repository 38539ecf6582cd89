"""One installation for all: a folder, a worker of its own process, and a server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from scripts import Folder
from sites import POLOS, Site, key_of, started_server

from polos import PolosClient
from polos.testing import runtime

HERE = Path(__file__).parent
QUICK = {"POLOS_SWEEP_SECONDS": "0.2", "POLOS_PRELOAD_MODELS": "0", "POLOS_EMBEDDED_WORKER": "0"}


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    with Folder.new(QUICK) as folder:
        folder.environment |= {"PYTHONPATH": paths, "POLOS_HOME": str(folder.home)}
        worker = folder.command(*POLOS, "worker", "offered")
        _, url = started_server(folder)
        keys = {"default": key_of(folder, "default")}
        worker.wait_for(" ready.")
        yield Site(folder, url, keys)


@pytest.fixture(params=["direct", "http"])
def way(request: pytest.FixtureRequest) -> str:
    """How a client reaches its runs."""
    return str(request.param)


@pytest_asyncio.fixture
async def site_client(site: Site, way: str) -> AsyncIterator[PolosClient]:
    """A client of the site; tests that look at the site by other means, too, need one."""
    async with site.client(way) as made:
        yield made


@pytest_asyncio.fixture(params=["direct", "http", "memory"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[PolosClient]:
    """A client of the site, or of a runtime in memory, which has to keep the same promises."""
    if request.param == "memory":
        async with runtime() as made:
            yield made
        return
    async with request.getfixturevalue("site").client(request.param) as made:
        yield made
