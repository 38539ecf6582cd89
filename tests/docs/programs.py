"""Runs programs as a reader of the documentation would: in their folder, with a model that is played."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import nursery
from models.servers import ModelServer

ROOT = Path(__file__).parents[2]
PROGRAM_SECONDS = 90  # LiteLLM takes seconds to import; much more when the machine is busy
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def python_blocks(markdown: str) -> list[str]:
    """Return the python code of a page, block by block."""
    return PYTHON_BLOCK.findall(markdown)


def environment(server: ModelServer, home: Path) -> dict[str, str]:
    """Return the variables of a reader who has configured nothing but a provider."""
    return {**bare_environment(home), **server.environment}


def bare_environment(home: Path) -> dict[str, str]:
    """Return the variables of a reader who has configured nothing."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POLOS_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "POLOS_HOME": str(home)}


def run(file: str, folder: Path, variables: Mapping[str, str], *, typed: str | None = None) -> str:
    """Run a program to its end; return what it printed. `typed` is what somebody types."""
    command = [sys.executable, file]
    done = nursery.run(command, cwd=folder, env=variables, timeout=PROGRAM_SECONDS, typed=typed)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def celery(*words: str, folder: Path, variables: Mapping[str, str], until: str) -> Iterator[list[str]]:
    """Run a command of Celery; enter once a line of its output contains `until`. Yields all lines so far."""
    process = nursery.start(
        [sys.executable, "-m", "celery", "-A", "polos", *words],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    lines: list[str] = []
    ready = threading.Event()
    reader = threading.Thread(target=_read, args=(process, lines, ready, until), daemon=True)
    reader.start()
    try:
        assert ready.wait(PROGRAM_SECONDS), "".join(lines)
        assert process.poll() is None, "".join(lines)
        yield lines
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(40)
        process.kill()
        process.wait()
        reader.join(5)


def _read(process: nursery.Process, lines: list[str], ready: threading.Event, until: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if until in line:
            ready.set()
    ready.set()  # it ended: whoever waits finds out
