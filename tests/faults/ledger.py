"""What side effects write down, outside of all that could be rolled back: one line each, appended whole."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A side effect began or ended."""

    run: str
    name: str
    phase: str
    pid: int
    at: float


class Ledger:
    """A file that processes append to."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def write(self, run: str, name: str, phase: str) -> None:
        """Append one line, in one write: it is there whole, or not at all."""
        line = json.dumps([run, name, phase, os.getpid(), time.time()]) + "\n"
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def of(self, run: str) -> list[Entry]:
        """Return what was done for a run, in order."""
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        return [entry for entry in (Entry(*json.loads(line)) for line in lines) if entry.run == run]
