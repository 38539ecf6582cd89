"""`Polos`: client, worker and embedded services in one object, for programs that are a single file."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any, Self

from polos.client import PolosClient, SyncClient
from polos.direct import DirectTransport
from polos.errors import ConfigurationError
from polos.interrupts import Interrupts, stop_signals
from polos.settings import Settings, hide_password
from polos.transport import is_loopback

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class Polos(PolosClient):
    """A client with a worker of its own in a thread of this process.

    ``async with Polos() as polos: await agent.run(polos, "…")``. What is defined when it starts is served; so
    is what is defined later, once a run of it is started.

    Args:
        log_file: All logging goes there, in append mode: the terminal shows only the program's prints.
        max_concurrent_workflows: What executes at once; POLOS_MAX_CONCURRENT_WORKFLOWS, else 100.
        port: Accepted for programs that pass it; the worker needs no HTTP endpoint.
        channels: Must be empty: channels are not supported by this version.
        settings: Of services and limits; those of the environment unless given.
    """

    def __init__(
        self,
        project_id: str | None = None,
        api_url: str | None = None,
        api_key: str | None = None,
        deployment_id: str | None = None,
        port: int = 8000,
        max_concurrent_workflows: int | None = None,
        channels: list[Any] | None = None,
        log_file: str | None = None,
        *,
        settings: Settings | None = None,
    ) -> None:
        if log_file is not None:
            log_to(Path(log_file))
        refuse_channels(channels)
        deployment_id = deployment_id or os.environ.get("POLOS_DEPLOYMENT_ID") or "default"
        settings = (settings or Settings.from_environment()).with_values(
            project_id=project_id,
            deployment_id=deployment_id,
            embedded_concurrency=max_concurrent_workflows,
        )
        transport = DirectTransport(settings, project_id=settings.project_id, deployment_id=deployment_id)
        super().__init__(
            api_url, api_key, settings.project_id, deployment_id, settings=settings, transport=transport
        )
        _refuse_server(self.api_url)
        self.port = port
        self._stopped: asyncio.Event | None = None
        self._interrupts = Interrupts()

    async def start(self) -> None:
        """Start serving in the background and return once the worker is ready; again is harmless."""
        if self._stopped is None:
            self._stopped = asyncio.Event()
            self._interrupts.install()
            await self.start_worker()

    async def serve(self) -> None:
        """Serve until SIGINT, SIGTERM or `stop()`."""
        await self.start()
        assert self._stopped is not None
        with stop_signals(self._stopped.set):
            await self._stopped.wait()
        await self.stop()

    async def stop(self) -> None:
        """Hand unfinished runs back and end; they go on with the next worker. Harmless when not started."""
        self._interrupts.remove()
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            stopped.set()
        await self.close()

    @property
    def sync(self) -> SyncPolos:
        """The same methods for code that cannot await: each returns when it is done."""
        return SyncPolos(self, self._background)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class SyncPolos(SyncClient):
    """The methods of a `Polos` for code that cannot await; ``with Polos().sync as polos:`` serves."""

    client: Polos

    def start(self) -> None:
        """Start serving in the background and return once the worker is ready; again is harmless."""
        self.call(self.client.start())

    def stop(self) -> None:
        """Hand unfinished runs back and end; they go on with the next worker. Harmless when not started."""
        self.call(self.client.stop())
        self._background.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _refuse_server(api_url: str) -> None:
    if not is_loopback(api_url):
        raise ConfigurationError(
            f"api_url={hide_password(api_url)!r}: Polos serves runs itself, from database and broker. Leave "
            "api_url out and set POLOS_DATABASE_URL and POLOS_BROKER_URL to those of your workers; for a "
            "server there is PolosClient"
        )


def refuse_channels(channels: list[Any] | None) -> None:
    """Raise ValueError when there are any."""
    if channels:
        raise ValueError("channels=… is not supported by this version of polos; leave it out")


def log_to(path: Path) -> None:
    """Append all logging to a file, and show none of it."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    handler = logging.FileHandler(path, mode="a", encoding="utf-8")
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
