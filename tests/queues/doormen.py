"""A fleet of engines, each with a doorman of its own: all that a worker has but Celery."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from counter import HERE
from engine.fleet import Fleet, Worker

from polos.dispatch import Doorbell
from polos.journal.creating import create_run
from polos.journal.database import Database
from polos.journal.queues import Limits, declare_queue
from polos.journal.recovery import due_runs
from polos.journal.runs import NewRun
from polos.journal.workers import WorkerRow, register_worker
from polos.settings import Settings
from polos.worker.doorman import Doorman

SETTINGS = Settings(
    ring_again_seconds=0.3, ring_again_max_seconds=0.3, silence_limit_seconds=600.0, doorbells_per_route=20
)


class Ledger:
    """Who was inside at once, kept outside of what is tested."""

    def __init__(self) -> None:
        self.inside: dict[str, int] = defaultdict(int)
        self.most: dict[str, int] = defaultdict(int)
        self.entries: list[tuple[float, str]] = []
        self.may_end = False

    def enter(self, what: str) -> None:
        self.entries.append((time.monotonic(), what))
        self.inside[what] += 1
        self.most[what] = max(self.most[what], self.inside[what])

    def leave(self, what: str) -> None:
        self.inside[what] -= 1


class Across:
    """Rings on the fleet's loop, from the doorman's thread."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._loop = asyncio.get_running_loop()

    def ring(self, *doorbells: Doorbell) -> None:
        if doorbells:
            self._loop.call_soon_threadsafe(self._fleet.ring, *doorbells)


class GuardedFleet(Fleet):
    """Workers with doormen."""

    def __init__(self, database: Database, *offered: str) -> None:
        super().__init__(database, SETTINGS)
        self._doormen: dict[str, Doorman] = {}
        self._across = Across(self)
        self._place = 0
        worker = WorkerRow("offers", "w", 1, **HERE, kind="celery", routes="polos", concurrency=1)
        self.do(register_worker(worker, [("workflow", name) for name in offered]))

    def hire(self, **options: Any) -> Worker:
        worker = super().hire(**options)
        doorman = Doorman(self.database, self._across, self.settings)
        self._doormen[worker.runtime.worker_id] = doorman
        worker.runtime.doorman = doorman
        doorman.start()
        return worker

    async def bury(self, worker: Worker) -> None:
        await asyncio.to_thread(self._doormen.pop(worker.runtime.worker_id).stop)
        await super().bury(worker)

    def limit(self, queue: str, concurrency: int | None = None, **limits: Any) -> None:
        self.do(declare_queue(**HERE, name=queue, limits=Limits(concurrency, **limits)))

    def submit(self, name: str, queue: str, payload: str | None = None, **values: Any) -> str:
        """Start a run as a client does that dies before it admits anybody."""
        self._place += 1
        run_id = f"run-{self._place}"
        new = NewRun(
            id=run_id,
            **HERE,
            kind="workflow",
            name=name,
            root_id=run_id,
            root_name=name,
            queue=queue,
            route="polos",
            input=payload,
            **values,
        )
        window = self.settings.doorbells_per_route
        self._control.commit([create_run(new, ring_again=0.3, window=window, place=self._place)])
        if self.record(run_id)["slot"] is None:
            self.ring(Doorbell(run_id, name))
        return run_id

    def sweep(self) -> None:
        for row in self._control.commit([due_runs(ring_again=0.3, ring_again_max=0.3)])[0]:
            self.ring(Doorbell(row[0], row[2]))

    async def close(self) -> None:
        for doorman in self._doormen.values():
            await asyncio.to_thread(doorman.stop)
        await super().close()


@asynccontextmanager
async def guarded_fleet(database: Database, *offered: str) -> AsyncIterator[GuardedFleet]:
    """Run workers while the context lasts."""
    running = GuardedFleet(database, *offered)
    try:
        yield running
    finally:
        await running.close()
