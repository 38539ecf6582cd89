"""A server in a thread of the tests, over real HTTP, with keys of several projects."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from fastapi import FastAPI

from polos.journal import keys
from polos.journal.database import Connection, Database
from polos.server import create_app
from polos.settings import Settings

API = "/api/v1"


def wait_until(condition: Callable[[], object], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


class Stand:
    """A running server. Clients it hands out are closed with it."""

    def __init__(self, url: str, app: FastAPI, settings: Settings) -> None:
        self.url = url
        self.app = app
        self.settings = settings
        self._clients: list[httpx.Client] = []

    @functools.cached_property
    def _journal(self) -> Connection:
        return Database(self.settings.database_url).connect()

    def key(self, project: str, *, admin: bool = False) -> str:
        """Issue a key of a project; return its secret."""
        _, secret = keys.issue(self._journal, project, "test", is_admin=admin)
        return secret

    def revoked_key(self, project: str) -> str:
        key, secret = keys.issue(self._journal, project, "test")
        assert keys.revoke(self._journal, key.id, project=project)
        return secret

    def client(self, secret: str | None = None, **headers: str) -> httpx.Client:
        """Return a client that sends this key."""
        if secret is not None:
            headers["Authorization"] = f"Bearer {secret}"
        client = httpx.Client(base_url=self.url, headers=headers, timeout=60, verify=False)  # http: and quick
        self._clients.append(client)
        return client

    def of_new_project(self, *, admin: bool = False) -> tuple[httpx.Client, str]:
        """Return a client of a project that nobody else uses, and the project."""
        project = f"project-{uuid.uuid4().hex[:8]}"
        return self.client(self.key(project, admin=admin)), project

    def open_streams(self) -> int:
        """Return how many streams the server is sending."""
        names = [task.get_name() for task in asyncio.all_tasks(self.app.state.loop)]
        return names.count("stream events")

    def close(self) -> None:
        for client in self._clients:
            client.close()
        if "_journal" in vars(self):
            self._journal.close()


@contextmanager
def stand(settings: Settings) -> Iterator[Stand]:
    """Run a server with these settings while the context lasts."""
    app = create_app(settings)
    config = uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(_serve(server, app)), name="server under test")
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        running = Stand(f"http://127.0.0.1:{port}", app, settings)
        try:
            yield running
        finally:
            running.close()
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


async def _serve(server: uvicorn.Server, app: FastAPI) -> None:
    app.state.loop = asyncio.get_running_loop()
    await server.serve()
