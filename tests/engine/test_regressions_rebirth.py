"""A worker that was declared dead goes on under a new id, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from polos.connections import Outage
from polos.errors import JournalUnavailableError
from polos.journal.database import Connection, Database
from polos.journal.workers import READ_WORKERS, remove_worker
from polos.settings import Settings
from polos.worker.app import build_app
from polos.worker.service import WorkerService

SETTINGS = Settings(broker_url="redis://127.0.0.1:1/0", beat_seconds=0.05)


class Flaky(Database):
    """A database that refuses new connections for a while."""

    refusals = 0

    def connect(self, *, impatient: bool = False) -> Connection:
        if self.refusals > 0 and threading.current_thread().name != "polos-sweeper":
            self.refusals -= 1
            raise JournalUnavailableError("not now")
        return super().connect(impatient=impatient)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever, daemon=True)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join(10)
    running.close()


@pytest.fixture
def flaky(database: Database) -> Flaky:
    return Flaky(database.url.render_as_string(hide_password=False))


@pytest.fixture
def service(flaky: Flaky, loop: asyncio.AbstractEventLoop) -> Iterator[WorkerService]:
    connections: Any = SimpleNamespace(
        database=flaky,
        direct_database=flaky,
        redis=SETTINGS.broker_url,
        broker_outage=Outage("%s", ""),
        redis_outage=Outage("%s", ""),
        revive=lambda: None,
    )
    settings = SETTINGS.with_values(database_url=str(flaky.url))
    serving = WorkerService(
        build_app(settings),
        connections,
        settings,
        hostname="w@test",
        kind="celery",
        concurrency=1,
        routes={"polos"},
        drain_seconds=0,
    )

    def run(work: Any, timeout_seconds: float | None = None) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(timeout_seconds or 20)

    serving.start(loop, run)
    yield serving
    serving.drain()


@pytest.mark.parametrize("refusals", [2])
def test_it_is_registered_again_under_the_id_its_runs_are_claimed_with(
    service: WorkerService, flaky: Flaky, refusals: int
) -> None:
    assert service.runtime is not None
    runtime, dead = service.runtime, service.runtime.worker_id
    connection = flaky.connect()
    for _ in range(2):
        dead = runtime.worker_id
        flaky.refusals = refusals
        connection.commit([remove_worker(dead)])
        _until(lambda dead=dead: runtime.worker_id != dead)
        _until(lambda: runtime.worker_id in {row[0] for row in connection.read(READ_WORKERS, {})})
        _until(lambda: service._heartbeat.is_fresh)
        assert service._heartbeat.worker_id == runtime.worker_id
    connection.close()


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
