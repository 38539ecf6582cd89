"""Worker processes: the survivor, started as users do, and victims, forked from a warm process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
PATHS = os.pathsep.join([str(HERE), str(HERE.parents[1])])


def worker_arguments(name: str, queues: list[str]) -> list[str]:
    """Return the arguments of `celery` for a worker of these Celery queues."""
    options = ["-n", name, "-c", "4", "-l", "INFO", "--without-mingle", "--without-gossip"]
    return ["-A", "polos", "worker", "-Q", ",".join(queues), *options]


class Survivor:
    """A worker that lives through all cases of one database."""

    def __init__(self, name: str, environment: dict[str, str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "celery", *worker_arguments(name, [f"{name}.idle"])],
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
    """A worker that is to be killed by its own fault."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log

    @property
    def lives(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def end(self) -> None:
        _kill_group(self.pid)


class Nursery:
    """Forks victims; see nursery.py."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "nursery.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            start_new_session=True,
        )
        self._born: list[Victim] = []

    def wait_ready(self) -> None:
        assert self._answer() == "ready"

    def worker(self, name: str, queues: list[str], environment: dict[str, str]) -> Victim:
        """Start a worker."""
        log = self._folder / f"{name}.log"
        order = {
            "arguments": worker_arguments(name, queues),
            "environment": {"PYTHONPATH": PATHS, **environment},
            "folder": str(self._folder),
            "log": str(log),
        }
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        self._born.append(Victim(int(self._answer()), log))
        return self._born[-1]

    def end(self) -> None:
        """End everything that was born here."""
        for victim in self._born:
            victim.end()
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline().strip()
        assert line, "the nursery ended"
        return line


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
