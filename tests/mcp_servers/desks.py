"""The server of these tests, and what it wrote down."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts import wait_until

TINY = [sys.executable, str(Path(__file__).with_name("tiny.py"))]
DESK = [sys.executable, str(Path(__file__).with_name("desk.py"))]


class Ledger:
    """What the server wrote down."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "ledger"
        self.gates = folder / "gates"
        self.gates.mkdir(exist_ok=True)
        self.environment = {"LEDGER": str(self.file), "WAIT_FOR": str(self.gates)}

    def lines(self, what: str | None = None) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        found = [json.loads(line) for line in self.file.read_text().splitlines()]
        return [line for line in found if what in (None, line["what"])]

    def has(self, what: str, times: int = 1, *, seconds: float = 60) -> None:
        wait_until(lambda: len(self.lines(what)) >= times, seconds=seconds)

    def open(self, name: str) -> None:
        """Let `wait` go on."""
        (self.gates / name).touch()


@contextmanager
def http_desk(folder: Path) -> Iterator[tuple[str, Ledger]]:
    """Run the server over HTTP; give its URL, and what it writes down."""
    ledger = Ledger(folder)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    process = subprocess.Popen([*DESK, str(port)], env={**os.environ, **ledger.environment})
    try:
        wait_until(lambda: answers(port), seconds=60)
        yield f"http://127.0.0.1:{port}/mcp", ledger
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
