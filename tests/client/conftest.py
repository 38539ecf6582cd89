"""One installation for all: a folder, a worker of its own process, a server, and clients of either way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from scripts import Folder, Script

from polos import PolosClient
from polos.settings import Settings

HERE = Path(__file__).parent
POLOS = [sys.executable, "-m", "polos.cli.main"]
QUICK = {"POLOS_SWEEP_SECONDS": "0.2", "POLOS_PRELOAD_MODELS": "0", "POLOS_EMBEDDED_WORKER": "0"}


@dataclass(frozen=True)
class Site:
    """A folder with a worker and a server, and how programs reach them."""

    folder: Folder
    url: str
    keys: dict[str, str]  # by project

    @property
    def environment(self) -> Mapping[str, str]:
        """Of a program that goes straight to journal and broker."""
        return self.folder.environment

    @property
    def settings(self) -> Settings:
        return Settings.from_environment(self.environment)

    def client(self, way: str, *, project_id: str | None = None) -> PolosClient:
        if way == "direct":
            return PolosClient(project_id=project_id, settings=self.settings)
        project = project_id or "default"
        if project not in self.keys:
            self.keys[project] = key_of(self.folder, project)
        return PolosClient(self.url, self.keys[project], settings=self.settings)


def key_of(folder: Folder, project: str) -> str:
    """Return a new API key."""
    command = [*POLOS, "keys", "create", "test", "--project", project, "--json"]
    made = subprocess.run(
        command, cwd=folder.path, env=folder.environment, capture_output=True, text=True, timeout=30
    )
    assert made.returncode == 0, made.stderr
    return str(json.loads(made.stdout)["key"])


def started_server(folder: Folder, *, port: int = 0, **environment: str) -> tuple[Script, str]:
    """Start `polos server` and return it with its URL, once it serves."""
    server = folder.command(*POLOS, "server", "--port", str(port), **environment)
    server.wait_for("Uvicorn running on")
    found = re.search(r"running on (http://\S+)", server.text)
    assert found is not None, server.text
    return server, found[1]


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
async def client(site: Site, way: str) -> AsyncIterator[PolosClient]:
    async with site.client(way) as made:
        yield made
