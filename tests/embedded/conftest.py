from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

USER = Path(__file__).with_name("user.py")
ROOT = USER.parents[2]


def is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] not in ("", "Z")  # a zombie waits for its parent only


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class User:
    """A process under test, in a session of its own; see user.py for what it can be told."""

    def __init__(self, folder: Path, *, grace: float, start_timeout: float, only_path: str | None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(USER), str(folder), str(grace), str(start_timeout), only_path or ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def begin(self, command: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the user process ended"
        return json.loads(line)

    def tell(self, command: str) -> dict[str, Any]:
        self.begin(command)
        return self.answer()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Crew:
    """The users of one folder, and what they started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.users: list[User] = []
        self.others: set[int] = set()  # processes to end with the test

    def user(self, *, grace: float = 0.05, start_timeout: float = 15, only_path: str | None = None) -> User:
        """A new process, yet without a share; with `only_path`, it knows no server but one found there."""
        self.users.append(User(self.folder, grace=grace, start_timeout=start_timeout, only_path=only_path))
        return self.users[-1]

    def record(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return json.loads((self.folder / "server.json").read_text())
        return {}

    def server_pid(self) -> int:
        pid = self.record()["pid"]
        self.others.add(pid)
        return pid

    def kill_server(self) -> int:
        pid = self.server_pid()
        kill(pid)
        self.wait_gone(pid)
        return pid

    def kill_watcher(self) -> None:
        for pid in self.watcher_pids():
            kill(pid)
        self.wait_until(lambda: not self.watcher_pids())

    def watcher_pids(self) -> list[int]:
        command = ["ps", "-axww", "-o", "pid=,args="]
        listing = subprocess.run(command, capture_output=True, text=True, check=True)
        lines = [line for line in listing.stdout.splitlines() if f"watcher.py {self.folder} " in line]
        return [int(line.split()[0]) for line in lines]

    def starts(self) -> int:
        return (self.folder / "server.log").read_text().count("Ready to accept connections")

    @staticmethod
    def wait_until(condition: Callable[[], object], *, seconds: float = 8) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true"
            time.sleep(0.01)

    @staticmethod
    def assert_stays(condition: Callable[[], object], *, seconds: float = 0.4) -> None:
        """A thing that must not happen can only be given time to: several graces of it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert condition()
            time.sleep(0.05)

    def wait_gone(self, *pids: int) -> None:
        self.wait_until(lambda: not any(is_running(pid) for pid in pids))

    def end(self) -> None:
        with contextlib.suppress(KeyError):
            self.server_pid()
        for user in self.users:
            user.close()
        try:
            self.wait_until(lambda: not self.watcher_pids())
            self.wait_gone(*self.others)
        finally:
            for pid in (*self.others, *self.watcher_pids()):
                kill(pid)


@pytest.fixture
def crew_named() -> Iterator[Callable[[str], Crew]]:
    """Crews by the name of their folder; when the test ends, so must all they started."""
    # Not tmp_path, which is too long for a socket.
    base = Path(tempfile.mkdtemp(prefix="polos-")).resolve()
    crews: list[Crew] = []

    def named(name: str) -> Crew:
        crews.append(Crew(base / name))
        return crews[-1]

    yield named
    try:
        for crew in crews:
            crew.end()
    finally:
        shutil.rmtree(base)


@pytest.fixture
def crew(crew_named: Callable[[str], Crew]) -> Crew:
    """A crew whose server listens on a unix socket."""
    return crew_named("home")


@pytest.fixture
def tcp_crew(crew_named: Callable[[str], Crew]) -> Crew:
    """A crew whose folder has too long a name for a socket."""
    return crew_named("a-long-name-" * 9)


@pytest.fixture(params=["crew", "tcp_crew"])
def any_crew(request: pytest.FixtureRequest) -> Crew:
    return request.getfixturevalue(request.param)
