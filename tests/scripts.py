"""Scripts as users write them, started in a folder of their own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import nursery

ROOT = Path(__file__).parents[1]
HEAD = """
import asyncio, os, sys, time
from pathlib import Path
from pydantic import BaseModel
from polos import *
from polos import WorkflowContext, Agent, Polos, PolosClient, tool, workflow


def say(*words):
    print(*words, flush=True)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)

"""


def wait_until(condition: Callable[[], object], *, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class Script:
    """A running script; what it says is read by a thread."""

    def __init__(self, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.process = nursery.start(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, words: str, *, seconds: float = 20) -> None:
        """Return once the script has said these words."""
        deadline = time.monotonic() + seconds
        while words not in self.text:
            ended = self.process.poll() is not None and not self._reader.is_alive()
            assert not ended, f"it ended without saying {words!r}:\n{self.text}"
            assert time.monotonic() < deadline, f"it did not say {words!r} in time:\n{self.text}"
            time.sleep(0.01)

    def ends(self, *, code: int | None = 0, seconds: float = 30) -> str:
        """Return all it said, once it has ended with this exit code."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end in {seconds} s:\n{self.text}") from None
        self._reader.join(5)
        assert code is None or self.process.returncode == code, self.text
        return self.text

    def interrupt(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)  # as a terminal does

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Folder:
    """A folder in which scripts run without configuration."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.path = path
        kept = {name: value for name, value in os.environ.items() if not name.startswith("POLOS_")}
        # LiteLLM takes seconds of a processor to load, and most scripts call no model.
        usual = {"PYTHONPATH": str(ROOT), "POLOS_PRELOAD_MODELS": "0"}
        self.environment = {**kept, **usual, **environment}
        self.scripts: list[Script] = []
        self._others: set[int] = set()

    @classmethod
    @contextlib.contextmanager
    def new(cls, environment: Mapping[str, str]) -> Iterator[Folder]:
        # Not tmp_path, which is too long for a socket.
        path = Path(tempfile.mkdtemp(prefix="polos-")).resolve()
        folder = cls(path, environment)
        try:
            yield folder
        finally:
            folder.end()
            shutil.rmtree(path)

    @property
    def home(self) -> Path:
        return self.path / ".polos"

    def write(self, name: str, source: str) -> Path:
        file = self.path / name
        file.write_text(HEAD + textwrap.dedent(source))
        return file

    def start(self, name: str, *arguments: str, **environment: str) -> Script:
        """Run a script that was written."""
        return self.command(sys.executable, name, *arguments, **environment)

    def start_worker(self, modules: str, **environment: str) -> Script:
        """Run a worker as users do, and return once it serves."""
        celery = str(Path(sys.executable).with_name("celery"))
        command = [celery, "-A", "polos", "worker", "-c", "4", "-l", "INFO"]
        worker = self.command(*command, POLOS_IMPORTS=modules, **environment)
        worker.wait_for(" ready.")
        return worker

    def command(self, *command: str, **environment: str) -> Script:
        self.scripts.append(Script(list(command), self.path, {**self.environment, **environment}))
        return self.scripts[-1]

    def server_pid(self) -> int:
        """Return the pid of the embedded server, 0 when none was started."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            pid = int(json.loads((self.home / "server.json").read_text())["pid"])
            self._others.add(pid)
            return pid
        return 0

    def kill_server(self) -> None:
        pid = self.server_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_running(pid))

    def end(self) -> None:
        self.server_pid()
        for script in self.scripts:
            script.kill()
        pids = {*self._others, *self._watchers()}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(is_running(pid) for pid in pids))

    def _watchers(self) -> set[int]:
        command = ["ps", "-axww", "-o", "pid=,args="]
        listing = subprocess.run(command, capture_output=True, text=True, check=True)
        lines = [line for line in listing.stdout.splitlines() if f"watcher.py {self.home} " in line]
        return {int(line.split()[0]) for line in lines}
