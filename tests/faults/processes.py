"""Worker processes: the survivor, started as users do, and victims, forked from a warm process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
PATHS = os.pathsep.join([str(HERE), str(HERE.parents[1])])


def worker_arguments(
    name: str, queues: Sequence[str] = (), options: Sequence[str] = ("-c", "4")
) -> list[str]:
    """Return the arguments of `celery` for a worker of these Celery queues, without any: of all it serves."""
    queue_option = ["-Q", ",".join(queues)] if queues else []
    fixed = ["-n", name, "-l", "INFO", "--without-mingle", "--without-gossip"]
    return ["-A", "polos", "worker", *queue_option, *fixed, *options]


class Survivor:
    """A worker that lives through all cases of one database.

    Args:
        queues: All it is ever to consume: a worker serves the routes it is started with.
    """

    def __init__(self, name: str, queues: Sequence[str], environment: dict[str, str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "celery", *worker_arguments(name, [f"{name}.idle", *queues])],
                env={**os.environ, "PYTHONPATH": PATHS, **environment},
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Ask it to end, then make it."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        _kill_group(self._process.pid)
        self._process.wait()


class Victim:
    """A worker that was forked from the nursery, mostly to be killed."""

    def __init__(self, name: str, pid: int, log: Path, exits: Path) -> None:
        self.name = name
        self.pid = pid
        self.log = log
        self._exits = exits

    @property
    def lives(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def exit_code(self) -> int | None:
        """How it ended, None while it lives."""
        lines = self._exits.read_text().splitlines() if self._exits.exists() else []
        codes = [int(code) for pid, code in (line.split() for line in lines) if int(pid) == self.pid]
        return codes[-1] if codes else None

    def end(self) -> None:
        """Kill it, and all it has forked."""
        if self.exit_code is None:  # else the number may be somebody else's by now
            _kill_group(self.pid)


class Nursery:
    """Forks victims; see nursery.py."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._exits = folder / "exits"
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "nursery.py"), str(self._exits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            start_new_session=True,
        )
        self._born: list[Victim] = []

    def wait_ready(self) -> None:
        assert self._answer() == "ready"

    def worker(
        self,
        name: str,
        queues: Sequence[str],
        environment: dict[str, str],
        *,
        options: Sequence[str] = ("-c", "4"),
    ) -> Victim:
        """Start a worker."""
        log = self._folder / f"{name}.log"
        order = {
            "arguments": worker_arguments(name, queues, options),
            "environment": {"PYTHONPATH": PATHS, **environment},
            "folder": str(self._folder),
            "log": str(log),
        }
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        self._born.append(Victim(name, int(self._answer()), log, self._exits))
        return self._born[-1]

    def end(self) -> None:
        """End everything that was born here."""
        for victim in self._born:
            victim.end()
        self._process.communicate(timeout=30)  # the end of its orders is its own

    def _answer(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline().strip()
        assert line, "the nursery ended"
        return line


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
