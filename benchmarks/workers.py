"""Worker processes, started as users start them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from celery import Celery

from benchmarks.counted import FOLDER_VARIABLE, read_counts
from benchmarks.processes import cpu_seconds, peak_memory_mb
from benchmarks.servers import Site

START_SECONDS = 60.0
STOP_SECONDS = 15.0
REPOSITORY = Path(__file__).parents[1]
APP_OF_POLOS = "polos"
APP_OF_FLOOR = "benchmarks.floors.queue_app"


class Worker:
    """One worker process; `-l WARNING`, as Celery does by itself."""

    def __init__(self, site: Site, name: str, app: str, *options: str, environment: dict[str, str]) -> None:
        self.name = f"{name}@benchmark"
        self.log = site.folder / f"{name}.log"
        paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            app,
            "worker",
            "-n",
            self.name,
            "-l",
            "WARNING",
            *options,
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": paths, **environment},
                cwd=site.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process: with the asyncio and solo pools all work is done in it."""
        return self.process.pid

    def stop(self) -> None:
        """Ask it to end, then make it."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Fleet:
    """Workers of one app at one site."""

    def __init__(self, site: Site, app: str, options: tuple[str, ...], environment: dict[str, str]) -> None:
        self.workers: list[Worker] = []
        self._site = site
        self._app = app
        self._options = options
        self._environment = environment
        self._born = 0
        broker = site.broker_url if app == APP_OF_POLOS else site.floor_broker_url
        self._control = Celery("control", broker=broker, set_as_current=False)

    async def add(self, count: int) -> None:
        """Start workers and return when they answer."""
        for _ in range(count):
            self._born += 1
            name = f"{self._app.split('.')[0]}{self._born}"
            self.workers.append(
                Worker(self._site, name, self._app, *self._options, environment=self._environment)
            )
        await self._answer()

    def kill(self, pid: int) -> None:
        """End a worker as a crash would."""
        [worker] = [worker for worker in self.workers if worker.pid == pid]
        worker.process.kill()
        worker.process.wait()
        self.workers.remove(worker)

    def used(self) -> Counter[str]:
        """Return what the workers have sent, and `cpu_seconds`, so far."""
        total: Counter[str] = Counter()
        for worker in self.workers:
            total["cpu_seconds"] += cpu_seconds(worker.pid)  # type: ignore[assignment]  # a Counter adds floats too
            if self._app == APP_OF_POLOS:
                total.update(read_counts(self._site.folder, worker.pid))
        return total

    def peak_memory_mb(self) -> float:
        """Return the most resident memory of all workers together."""
        return sum(peak_memory_mb(worker.pid) for worker in self.workers)

    async def stop(self) -> None:
        """End all workers."""
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in self.workers))
        self._control.close()

    async def _answer(self) -> None:
        missing = {worker.name for worker in self.workers}
        async with asyncio.timeout(START_SECONDS):
            while missing:
                self._check_alive()
                answers = await asyncio.to_thread(self._ping, sorted(missing))
                missing -= {name for answer in answers for name in answer}

    def _ping(self, names: list[str]) -> list[dict[str, object]]:
        answers: list[dict[str, object]] = self._control.control.ping(
            destination=names, timeout=0.5, limit=len(names)
        )
        return answers

    def _check_alive(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is not None:
                raise RuntimeError(f"{worker.name} ended:\n{worker.log.read_text()[-3000:]}")


@asynccontextmanager
async def polos_workers(site: Site, count: int, *, model_url: str = "") -> AsyncIterator[Fleet]:
    """Run `celery -A polos worker` processes that offer `programs` while the context lasts."""
    environment = {
        **site.environment,
        "POLOS_IMPORTS": "benchmarks.counted,benchmarks.programs",
        "POLOS_PRELOAD_MODELS": "1" if model_url else "0",
        "OPENAI_BASE_URL": model_url,
        "OPENAI_API_KEY": "sk-benchmark",
        FOLDER_VARIABLE: str(site.folder),
    }
    async with _running(Fleet(site, APP_OF_POLOS, (), environment), count) as fleet:
        yield fleet


@asynccontextmanager
async def floor_workers(site: Site, count: int) -> AsyncIterator[Fleet]:
    """Run plain Celery workers of the floor: nothing but the task's own work in one process each."""
    environment = {"FLOOR_BROKER_URL": site.floor_broker_url, "FLOOR_DATABASE_URL": site.floor_url}
    options = ("-P", "solo", "--without-gossip", "--without-mingle")
    async with _running(Fleet(site, APP_OF_FLOOR, options, environment), count) as fleet:
        yield fleet


@asynccontextmanager
async def _running(fleet: Fleet, count: int) -> AsyncIterator[Fleet]:
    try:
        await fleet.add(count)
        yield fleet
    finally:
        await fleet.stop()
