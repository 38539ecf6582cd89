"""The demo tools' own record of what they did, kept beside polos: one JSON line per start and per finish."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

STARTED = "started"
FINISHED = "finished"


@dataclass(frozen=True)
class Entry:
    """One line: tool call `call`, for `city`, was started or finished by process `pid`."""

    event: str
    call: str
    city: str
    pid: int
    at: float


def write(path: Path, event: str, *, call: str, city: str) -> None:
    """Append a line, whole or not at all, whatever kills this process."""
    line = json.dumps(asdict(Entry(event, call, city, os.getpid(), time.time()))) + "\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def read(path: Path) -> list[Entry]:
    """Return the lines so far, in the order they were written."""
    if not path.exists():
        return []
    return [Entry(**json.loads(line)) for line in path.read_text().splitlines()]


def finished_calls(entries: list[Entry]) -> set[str]:
    """Return the calls that have finished."""
    return {entry.call for entry in entries if entry.event == FINISHED}


def running_calls(entries: list[Entry], pid: int) -> set[str]:
    """Return the calls that process `pid` has started and not finished."""
    mine = [entry for entry in entries if entry.pid == pid]
    return {entry.call for entry in mine if entry.event == STARTED} - finished_calls(mine)
