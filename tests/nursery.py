"""Processes of tests: programs in Python are forked from one that has done its imports, others start afresh.

``TESTS_FRESH=1`` in the environment starts all of them afresh, and in that of one process this one.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
MAIN = Path(__file__).with_name("nursery_main.py")
READY_SECONDS = 180.0  # on a loaded machine
# What a process reads while it starts or imports.
READ_AT_START = ("PYTHON", "CELERY_CUSTOM_WORKER_POOL", "LITELLM_")
READ_LATER = {"PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONWARNINGS"}  # for the nursery sees to them
COMMANDS = ("celery", "polos")


class Child:
    """A process that was forked, with what tests use of `subprocess.Popen`.

    Attributes:
        stdin: Its end of a pipe, where one was asked for; `stdout` and `stderr` likewise.
    """

    def __init__(self, args: Sequence[str], born: _Born, pipes: Sequence[IO[str] | None]) -> None:
        self.args = list(args)
        self.pid = born.pid
        self.stdin, self.stdout, self.stderr = pipes
        self._born = born

    @property
    def returncode(self) -> int | None:
        return self._born.code

    def poll(self) -> int | None:
        return self._born.code

    def wait(self, timeout: float | None = None) -> int:
        if not self._born.ended.wait(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        assert self._born.code is not None
        return self._born.code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, *, timeout: float | None = None) -> tuple[str, str]:
        """Return all it prints until its end; on time-out some may be lost."""
        read = {"stdout": "", "stderr": ""}

        def take(name: str, pipe: IO[str]) -> None:
            read[name] = pipe.read()

        pipes = {"stdout": self.stdout, "stderr": self.stderr}
        readers = [threading.Thread(target=take, args=each, daemon=True) for each in pipes.items() if each[1]]
        for reader in readers:
            reader.start()
        if self.stdin:
            self.stdin.close()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        for pipe in filter(None, pipes.values()):
            pipe.close()
        return read["stdout"], read["stderr"]


Process = Child | subprocess.Popen[str]


class _Born:
    """What is known of a child."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None
        self.ended = threading.Event()


class _Nursery:
    """The process that forks, and what it tells."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("POLOS_", "PYTHONPATH"))
        }
        self._process = subprocess.Popen(
            [sys.executable, str(MAIN), str(theirs.fileno())],
            env=kept,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        self._births: queue.SimpleQueue[_Born | None] = queue.SimpleQueue()
        self._living: dict[int, _Born] = {}
        self._orders = threading.Lock()
        threading.Thread(target=self._listen, name="nursery", daemon=True).start()

    def fork(self, order: dict[str, Any], streams: Sequence[int]) -> _Born:
        text = json.dumps(order).encode()
        with self._orders:
            socket.send_fds(self._control, [len(text).to_bytes(4)], streams)
            self._control.sendall(text)
            born = self._births.get(timeout=READY_SECONDS)
        assert born is not None, "the nursery has ended"
        return born

    def end(self) -> None:
        self._control.shutdown(socket.SHUT_WR)
        self._process.wait(10)

    def _listen(self) -> None:
        with self._control.makefile("rb") as answers:
            for line in answers:
                answer = json.loads(line)
                if "born" in answer:
                    born = self._living[answer["born"]] = _Born(answer["born"])
                    self._births.put(born)
                else:
                    born = self._living.pop(answer["ended"])
                    born.code = answer["code"]
                    born.ended.set()
        self._births.put(None)


@functools.cache
def _nursery() -> _Nursery:
    """Return that of this process, from the first call on."""
    made = _Nursery()
    atexit.register(made.end)
    return made


def start(
    command: Sequence[str],
    *,
    cwd: str | os.PathLike[str],
    env: Mapping[str, str],
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
) -> Process:
    """Start a process in a session of its own; pipes are of text.

    LiteLLM is imported before where the environment has a provider's key or has workers load LiteLLM.
    """
    program = _program(command, env)
    if program is None:
        options: dict[str, Any] = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        return subprocess.Popen(command, cwd=cwd, env=dict(env), text=True, start_new_session=True, **options)
    length = 2 if program[0] == "-m" else 1
    skipped = 1 + len(program) if command[0] == sys.executable else 1
    path = str(Path(cwd).resolve()) if length == 2 else str((Path(cwd) / program[0]).parent)
    order = {
        "program": program,
        "arguments": list(command[skipped:]),
        "path": path,
        "folder": str(cwd),
        "environment": dict(env),
        "models": "OPENAI_API_KEY" in env or env.get("POLOS_PRELOAD_MODELS", "1") != "0",
    }
    with _Streams(stdin, stdout, stderr) as streams:
        return Child(command, _nursery().fork(order, streams.theirs), streams.ours)


def run(
    command: Sequence[str],
    *,
    cwd: str | os.PathLike[str],
    env: Mapping[str, str],
    timeout: float,
    typed: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a process to its end, and return all it printed; `typed` is what it reads."""
    stdin = subprocess.DEVNULL if typed is None else subprocess.PIPE
    process = start(command, cwd=cwd, env=env, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        if typed is not None and process.stdin is not None:
            process.stdin.write(typed)
            process.stdin.flush()
        stdout, stderr = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(list(command), process.wait(), stdout, stderr)


def _program(command: Sequence[str], env: Mapping[str, str]) -> list[str] | None:
    """Return the file, or "-m" and the module, that Python is to run; None for what must start afresh."""
    if "TESTS_FRESH" in {**os.environ, **env} or not hasattr(os, "fork") or _differs(env):
        return None
    if command[0] == sys.executable:
        if command[1] == "-m":
            return list(command[1:3])
        return None if command[1].startswith("-") else [command[1]]
    found = shutil.which(command[0], path=env.get("PATH"))
    ours = [str(Path(sys.executable).with_name(name)) for name in COMMANDS]
    return [found] if found in ours else None


def _differs(env: Mapping[str, str]) -> bool:
    names = {*env, *os.environ} - READ_LATER
    return any(name.startswith(READ_AT_START) and env.get(name) != os.environ.get(name) for name in names)


class _Streams:
    """The standard streams of a child: as asked for, and our ends of pipes."""

    def __init__(self, *asked: int | IO[Any] | None) -> None:
        self._opened: list[int] = []
        self.theirs: list[int] = []
        self.ours: list[IO[str] | None] = []
        for number, wanted in enumerate(asked):
            self._open(number, wanted)

    def __enter__(self) -> _Streams:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._opened:
            os.close(one)

    def _open(self, number: int, wanted: int | IO[Any] | None) -> None:
        ours = None
        if wanted == subprocess.PIPE:
            read, write = os.pipe()
            theirs, kept = (read, write) if number == 0 else (write, read)
            self._opened.append(theirs)
            ours = os.fdopen(kept, "w" if number == 0 else "r")
        elif wanted == subprocess.DEVNULL:
            theirs = os.open(os.devnull, os.O_RDWR)
            self._opened.append(theirs)
        elif wanted == subprocess.STDOUT:
            theirs = self.theirs[1]
        elif wanted is None:
            theirs = number
        else:
            theirs = wanted if isinstance(wanted, int) else wanted.fileno()
        self.theirs.append(theirs)
        self.ours.append(ours)
