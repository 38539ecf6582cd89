"""What side effects write down, outside of all that could be rolled back: one line each, appended whole."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

WORKER = "FAULT_WORKER"  # variable that names the worker a process belongs to, where the harness gives one

# Variable for processes whose clock is wrong: seconds since the epoch when the monotonic clock was zero.
EPOCH = "FAULT_EPOCH"


@dataclass(frozen=True)
class Entry:
    """A side effect began or ended."""

    run: str
    name: str
    phase: str
    pid: int
    at: float
    worker: str = ""


class Ledger:
    """A file that processes append to; or a folder with one for each run, where that has many."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def write(self, run: str, name: str, phase: str) -> None:
        """Append one line, in one write: it is there whole, or not at all."""
        entry = [run, name, phase, os.getpid(), _now(), os.environ.get(WORKER, "")]
        file = os.open(self._file_of(run), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, (json.dumps(entry) + "\n").encode())
        finally:
            os.close(file)

    def read(self) -> list[Entry]:
        """Return everything, in order."""
        files = sorted(self._path.glob("*.run")) if self._path.is_dir() else [self._path]
        return [entry for file in files for entry in _entries(file)]

    def of(self, run: str) -> list[Entry]:
        """Return what was done for a run, in order."""
        return [entry for entry in _entries(self._file_of(run)) if entry.run == run]

    def _file_of(self, run: str) -> Path:
        return self._path / f"{run}.run" if self._path.is_dir() else self._path


def _now() -> float:
    epoch = os.environ.get(EPOCH)
    return time.time() if epoch is None else float(epoch) + time.monotonic()


def _entries(file: Path) -> list[Entry]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [Entry(*json.loads(line)) for line in lines]
