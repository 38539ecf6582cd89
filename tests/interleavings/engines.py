"""A worker's engine without its Celery: real journal and coordinator, every doorbell and nudge lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from hands import PATIENCE_SECONDS
from services import Untold, plain_routes

from polos.dispatch import Doorbell
from polos.engine.coordinator import coordinate
from polos.engine.runtime import NoSlot, Runtime
from polos.engine.tasks import install_task_factory
from polos.journal.database import Database
from polos.journal.writer import Journal
from polos.settings import Settings
from polos.worker.definitions import resolve


class Unheard:
    """Dispatcher and nudges of a worker whose broker and Redis are away."""

    def ring(self, *doorbells: Doorbell) -> None:
        """Lose them."""

    def publish(self, channel: str, message: str) -> None:
        """Lose it."""


class Engine:
    """One worker's runtime; what Celery would start, the test starts."""

    def __init__(self, journal: Journal, worker_id: str) -> None:
        install_task_factory(asyncio.get_running_loop())
        self.runtime = Runtime(
            settings=Settings(),
            journal=journal,
            nudges=Unheard(),
            feed=Untold(),
            dispatcher=Unheard(),
            routes=plain_routes(),
            serves=frozenset({"polos"}),
            resolve=resolve,
            worker_id=worker_id,
            project="default",
            deployment="default",
            may_start=_at_once,
        )

    def start(self, run_id: str) -> asyncio.Task[str]:
        """Begin what the task `polos.run` does."""
        return asyncio.create_task(coordinate(self.runtime, run_id, NoSlot()))

    async def waiting(self, run_id: str) -> Any:
        """Return the execution of a run once only the journal can make it go on."""
        await until(lambda: self._waits(run_id))
        return self.runtime.executions[run_id]

    def _waits(self, run_id: str) -> bool:
        execution = self.runtime.executions.get(run_id)
        return execution is not None and execution.waiting_since is not None

    async def close(self) -> None:
        await self.runtime.journal.close()


@asynccontextmanager
async def engine(database: Database, worker_id: str) -> AsyncIterator[Engine]:
    """Run an engine while the context lasts."""
    running = Engine(Journal.open(database), worker_id)
    try:
        yield running
    finally:
        await running.close()


async def until(condition: Callable[[], object]) -> None:
    """Return once `condition` holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.002)


async def ended(task: asyncio.Task[str]) -> str:
    """Return what became of a coordinator."""
    return await asyncio.wait_for(task, PATIENCE_SECONDS)


async def _at_once() -> None:
    return
