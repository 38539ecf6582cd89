"""An installation with a worker and a server, and clients of either way."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import nursery
from scripts import Folder, Script

from polos import PolosClient
from polos.settings import Settings

POLOS = [sys.executable, "-m", "polos.cli.main"]


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
    made = nursery.run(command, cwd=folder.path, env=folder.environment, timeout=30)
    assert made.returncode == 0, made.stderr
    return str(json.loads(made.stdout)["key"])


def started_server(folder: Folder, *, port: int = 0, **environment: str) -> tuple[Script, str]:
    """Start `polos server` and return it with its URL, once it serves."""
    server = folder.command(*POLOS, "server", "--port", str(port), **environment)
    server.wait_for("Uvicorn running on")
    found = re.search(r"running on (http://\S+)", server.text)
    assert found is not None, server.text
    return server, found[1]
