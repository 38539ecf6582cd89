"""The processes of the demo and the temporary folder they share. Nothing of it is left when the demo ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polos
from polos.demo.question import LEDGER_VARIABLE
from polos.embedded.locks import FileLock
from polos.embedded.valkey import EmbeddedValkey
from polos.embedded.watcher import SERVER, WATCHING
from polos.errors import ServiceUnavailableError
from polos.settings import Settings

AGENT_MODULE = "polos.demo.weather"
TOOLS_AT_ONCE = 3  # per worker: six tools keep both of them busy
GRACE_SECONDS = 0.3  # how long the embedded server outlives the demo
GONE_SECONDS = 8.0  # it must be gone by then
LOOK_AGAIN_SECONDS = 0.05
LOG_TAIL_LINES = 12


class Worker:
    """One `celery -A polos worker` process."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def freeze(self) -> bool:
        """Stop it where it is and return once it stands still; False when it has ended."""
        if self.process.poll() is not None:
            return False
        self.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.process.returncode = os.waitstatus_to_exitcode(status)
        return os.WIFSTOPPED(status)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self.process.kill()
        self.process.wait()


class Stage:
    """A folder with an embedded server in it, and the workers started so far."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.ledger = folder / "ledger.jsonl"
        self.workers: list[Worker] = []
        self.environment = _environment(folder, environment, ledger=self.ledger)
        self.settings = Settings.from_environment(self.environment)

    def start_worker(self, name: str) -> None:
        """Start a Celery worker; its output goes to a log in the folder."""
        command = [sys.executable, "-m", "celery", "-A", "polos", "worker", "-n", f"{name}@%h", "-l", "info"]
        log = self.folder / f"worker-{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "-c", str(TOOLS_AT_ONCE)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is ours: we end what we started
            )
        self.workers.append(Worker(name, process, log))

    def worker_of(self, pid: int | None) -> Worker | None:
        """Return the worker with this process id."""
        return next((worker for worker in self.workers if worker.pid == pid), None)

    def check(self, *, but: Worker | None = None) -> None:
        """Return if the workers live, all but one that was killed.

        Raises:
            ServiceUnavailableError: One has ended; shows the end of its log.
        """
        for worker in self.workers:
            if worker is not but and worker.process.poll() is not None:
                lines = worker.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
                raise ServiceUnavailableError(
                    f"Worker {worker.name} ended by itself; its log ends with:\n" + "\n".join(lines)
                )


@contextmanager
def open_stage(environment: Mapping[str, str]) -> Iterator[Stage]:
    """Make the folder and start its server; at the end, however it comes, end every process and remove it.

    Args:
        environment: Further variables for the workers.
    """
    folder = Path(tempfile.mkdtemp(prefix="polos-demo-")).resolve()
    valkey = EmbeddedValkey(folder, grace_seconds=GRACE_SECONDS)
    stage = Stage(folder, environment)
    with _stopping_on(signal.SIGTERM, signal.SIGHUP):
        try:
            valkey.acquire()
            yield stage
        finally:
            with _uninterrupted():
                _clear(stage, valkey)


def _clear(stage: Stage, valkey: EmbeddedValkey) -> None:
    for worker in stage.workers:
        worker.kill()
    valkey.release()
    _wait_until(lambda: _is_free(stage.folder / WATCHING) and _is_free(stage.folder / SERVER))
    shutil.rmtree(stage.folder, ignore_errors=True)  # a folder that stays in the temporary ones harms nobody


def _is_free(path: Path) -> bool:
    """Whether the process that holds this lock for life has ended."""
    lock = FileLock(path)
    try:
        return lock.try_exclusive()
    finally:
        lock.release()


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise ServiceUnavailableError(f"The embedded server did not end within {GONE_SECONDS:g} seconds")
        time.sleep(LOOK_AGAIN_SECONDS)


def _environment(folder: Path, more: Mapping[str, str], *, ledger: Path) -> dict[str, str]:
    """Return the workers' environment: this one, without settings of polos that point elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("POLOS_", "CELERY_"))}
    package = str(Path(polos.__file__).parent.parent)  # so that a checkout works without being installed
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([package, *filter(None, [kept.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
        "POLOS_HOME": str(folder),
        "POLOS_IMPORTS": AGENT_MODULE,
        LEDGER_VARIABLE: str(ledger),
        **more,
    }


@contextmanager
def _stopping_on(*numbers: signal.Signals) -> Iterator[None]:
    """Treat these signals like Ctrl-C, so that the demo clears up."""
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Finish what is under way whatever signal comes: it takes a second or two."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
