"""Workers without Celery: real journal, coordinator, slots; a doorbell starts its task at once."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any, TypeVar

from services import Untold, plain_routes

from polos.dispatch import Doorbell
from polos.engine.coordinator import coordinate
from polos.engine.runtime import Runtime
from polos.engine.tasks import install_task_factory, start_apart
from polos.journal.creating import create_run
from polos.journal.database import Database
from polos.journal.recovery import due_runs, put_back_runs, put_back_turns
from polos.journal.runs import READ_RUN, NewRun, run_record
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.journal.writer import Backend, Journal, PostgresBackend, SqliteBackend
from polos.settings import Settings
from polos.worker.definitions import resolve
from polos.worker.duties.desk import Desk
from polos.worker.duties.waits import EndWaits
from polos.worker.slots import Slot, Slots

T = TypeVar("T")
PATIENCE_SECONDS = 60.0
TERMINAL = {"completed", "failed", "cancelled", "blocked"}
SETTINGS = Settings(ring_again_seconds=0.0, ring_again_max_seconds=0.0)


class DeadWorker:
    """A backend that stops for good at the nth commit: before it, or after it without an answer."""

    def __init__(self, backend: Backend, *, dies_at: int | None, commits_last: bool) -> None:
        self._backend = backend
        self._dies_at = dies_at
        self._commits_last = commits_last
        self.commits = 0
        self.died = asyncio.Event()

    async def commit(self, units: Sequence[Unit]) -> list[Rows]:
        self.commits += 1
        if self.died.is_set() or self.commits == self._dies_at:
            if self._commits_last and not self.died.is_set():
                await self._backend.commit(units)
            self.died.set()
            await asyncio.Event().wait()
        return await self._backend.commit(units)

    async def read(self, statement: Statement, params: Params) -> Rows:
        if self.died.is_set():
            await asyncio.Event().wait()
        return await self._backend.read(statement, params)

    async def close(self) -> None:
        await self._backend.close()


class PostgresElsewhere:
    """A backend on a loop of its own: tests commit on theirs, and would block what they wait for."""

    def __init__(self, database: Database) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._backend = PostgresBackend(database)

    async def commit(self, units: Any) -> list[Rows]:
        return await self._there(self._backend.commit(units))

    async def read(self, statement: Statement, params: Params) -> Rows:
        return await self._there(self._backend.read(statement, params))

    async def close(self) -> None:
        await self._there(self._backend.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


class Worker:
    """One worker process's engine."""

    def __init__(self, fleet: Fleet, name: str, backend: Any, slots: int) -> None:
        self.backend = backend
        self.slots = Slots(slots)
        self.tasks: set[asyncio.Task[Any]] = set()
        self.failures: list[BaseException] = []
        self.runtime = Runtime(
            settings=fleet.settings,
            journal=Journal(backend),
            nudges=fleet,
            feed=Untold(),
            dispatcher=fleet,
            routes=plain_routes(),
            serves=frozenset({"polos"}),
            resolve=resolve,
            worker_id=name,
            project="default",
            deployment="default",
            may_start=_at_once,
        )

    def serve(self, run_id: str) -> asyncio.Task[Any]:
        """Do what Celery does with a doorbell."""
        task = start_apart(self._serve(run_id))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _serve(self, run_id: str) -> str | None:
        await self.slots.acquire()
        slot = Slot(self.slots)
        try:
            return await coordinate(self.runtime, run_id, slot)
        except Exception as error:  # what Celery would log
            self.failures.append(error)
            return None
        finally:
            slot.close()

    async def kill(self) -> None:
        """Be gone without a word."""
        self.backend.died.set()
        executions = list(self.runtime.executions.values())
        doomed = self.tasks | {task for execution in executions for task in execution.tasks}
        for task in doomed:
            task.cancel()
        if doomed:
            await asyncio.wait(doomed, timeout=5)
        await self.close()

    async def close(self) -> None:
        self.runtime.journal.writer._task.cancel()
        with suppress(asyncio.CancelledError):
            await self.runtime.journal.writer._task
        await self.backend.close()


class Fleet:
    """Workers on one journal; also their dispatcher and their nudges."""

    def __init__(self, database: Database, settings: Settings = SETTINGS) -> None:
        install_task_factory(asyncio.get_running_loop())
        self.database = database
        self.settings = settings
        self.workers: list[Worker] = []
        self._turn = count()
        self._numbers = count(1)
        self._control = database.connect()
        self._waits = EndWaits()
        self._desk = Desk(lambda: self._control, self, plain_routes(), settings, self._nudge)

    def hire(self, *, slots: int = 4, dies_at: int | None = None, commits_last: bool = False) -> Worker:
        backend = (
            SqliteBackend(self.database) if self.database.is_sqlite else PostgresElsewhere(self.database)
        )
        mortal = DeadWorker(backend, dies_at=dies_at, commits_last=commits_last)
        worker = Worker(self, f"worker-{next(self._numbers)}", mortal, slots)
        self.workers.append(worker)
        return worker

    async def bury(self, worker: Worker) -> None:
        """Kill a worker and put back what it owned."""
        self.workers.remove(worker)
        await worker.kill()
        self._control.commit([put_back_turns(worker.runtime.worker_id)])
        self._control.commit([put_back_runs(worker.runtime.worker_id)])

    def create(self, name: str, payload: str | None = None, **values: Any) -> str:
        run_id = uuid.uuid4().hex
        fixed = {"project": "default", "deployment": "default", "queue": name, "route": "polos"}
        values.setdefault("kind", "workflow")
        new = NewRun(
            id=run_id,
            name=name,
            root_id=run_id,
            root_name=name,
            input=payload,
            **fixed,
            **values,
        )
        self._control.commit([create_run(new, ring_again=0.0)])
        return run_id

    def do(self, unit: Unit) -> Rows:
        return self._control.commit([unit])[0]

    def read(self, statement: Statement, **params: Any) -> Rows:
        return self._control.read(statement, params)

    def record(self, run_id: str) -> dict[str, Any]:
        return run_record(self.read(READ_RUN, run=run_id)[0])

    def sweep(self) -> None:
        """Ring for whatever is due."""
        self._waits.do(self._desk)
        for row in self._control.commit([due_runs(ring_again=0.0, ring_again_max=0.0)])[0]:
            self.ring(Doorbell(row[0], row[2]))

    async def until_ended(self, run_id: str) -> dict[str, Any]:
        """Return the run once it has ended; rings again what nobody claimed."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (run := self.record(run_id))["status"] not in TERMINAL:
                if run["status"] in {"queued", "waiting"} or next(self._turn) % 20 == 0:
                    self.sweep()
                await asyncio.sleep(0.001)
        return run

    # -- dispatcher and nudges

    def ring(self, *doorbells: Doorbell) -> None:
        for doorbell in doorbells:
            if self.workers and doorbell.step is None:
                self.workers[next(self._turn) % len(self.workers)].serve(doorbell.run_id)

    def _nudge(self, owner: str, run_id: str) -> None:
        self.publish(f"worker:{owner}", run_id)

    def publish(self, channel: str, message: str) -> None:
        for worker in self.workers:
            execution = worker.runtime.executions.get(message)
            if execution is not None and channel == f"worker:{worker.runtime.worker_id}":
                execution.look_again()

    async def close(self) -> None:
        for worker in self.workers:
            await worker.kill()
        self._control.close()


@asynccontextmanager
async def fleet(database: Database, settings: Settings = SETTINGS) -> AsyncIterator[Fleet]:
    """Run workers while the context lasts."""
    running = Fleet(database, settings)
    try:
        yield running
    finally:
        await running.close()


async def until(condition: Callable[[], object]) -> None:
    """Return once `condition` holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.002)


async def _at_once() -> None:
    return
