"""Worker processes: survivors, who live through all cases of a database, and victims, mostly to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import nursery

HERE = Path(__file__).parent
PATHS = os.pathsep.join([str(HERE), str(HERE.parents[1])])


class Worker:
    """A worker of these Celery queues, without any: of all it serves.

    Args:
        queues: All it is ever to consume: a worker serves the routes it is started with.
        folder: Where it works, and writes its log.
        prefix: What its command begins with, to run on another host.
    """

    def __init__(
        self,
        name: str,
        queues: Sequence[str],
        environment: dict[str, str],
        folder: Path,
        *,
        options: Sequence[str] = ("-c", "4"),
        prefix: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        queue_option = ["-Q", ",".join(queues)] if queues else []
        fixed = ["-n", name, "-l", "INFO", "--without-mingle", "--without-gossip"]
        celery = [sys.executable, "-m", "celery", "-A", "polos", "worker"]
        command = [*prefix, *celery, *queue_option, *fixed, *options]
        with self.log.open("ab") as log:
            self._process = nursery.start(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": PATHS, **environment},
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lives(self) -> bool:
        return self.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """How it ended, None while it lives."""
        return self._process.poll()

    def retire(self) -> None:
        """Ask it to end, then make it."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self.end()

    def end(self) -> None:
        """Kill it, and all it has forked."""
        with suppress(ProcessLookupError):
            if self.lives:  # else the number may be somebody else's by now
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
