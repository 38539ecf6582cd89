"""An example, started by the commands of its README, in its folder, on services of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from scripts import Folder, Script, wait_until
from told_model import ToldModel

EXAMPLES = Path(__file__).parents[2] / "examples"
START_SECONDS = 60.0
READ_SECONDS = 60.0
LITELLM_NEEDS = "tiktoken"
needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class WebApp:
    """The processes of one example."""

    def __init__(self, folder: Folder, readme: str) -> None:
        self._folder = folder
        self._readme = readme
        self.workers: list[Script] = []
        self.server: Script
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def run(self, command: str, **environment: str) -> Script:
        """Start a command of the README, which must show it."""
        assert command in self._readme, f"the README does not show {command!r}"
        words = shlex.split(command)
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        words[0] = str(Path(sys.executable).with_name(words[0]))
        return self._folder.command(*words, **environment)

    def start(self, server: str, *workers: str) -> None:
        """Start workers and the app; return once the app answers. What is asked waits for a worker."""
        self.workers = [self.run(command) for command in workers]
        self.serve(server)

    def serve(self, command: str) -> None:
        """Start the app on its port, and return once it answers."""
        port = str(self.port)
        self.server = server = self.run(command, PORT=port, UVICORN_PORT=port, TESTS_FRESH="1")
        wait_until(lambda: server.process.poll() is not None or self.answers(), seconds=START_SECONDS)
        assert server.process.poll() is None, server.ends(code=None)

    def answers(self) -> bool:
        try:
            return httpx.get(self.url, timeout=5).status_code < 500
        except httpx.TransportError:
            return False

    def server_pids(self) -> list[int]:
        """Return the server's pid and those of the processes it forked."""
        pid = self.server.process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def loaded(self, script: Script, library: str) -> bool:
        """Whether a process has a shared library in memory; of the server, any of its processes."""
        pids = self.server_pids() if script is self.server else [script.process.pid]
        return any(library in Path(f"/proc/{pid}/maps").read_text() for pid in pids)

    def visitor(self) -> httpx.Client:
        """Return a client with cookies of its own."""
        return httpx.Client(base_url=self.url, timeout=READ_SECONDS)


@contextmanager
def web_app(name: str, environment: Mapping[str, str]) -> Iterator[WebApp]:
    """Make an example ready to be started; at the end, end every process of it."""
    path = EXAMPLES / name
    # Not tmp_path, which is too long for a socket.
    with tempfile.TemporaryDirectory(prefix="polos-", ignore_cleanup_errors=True) as home:
        folder = ExampleFolder(path, Path(home), environment)
        try:
            yield WebApp(folder, (path / "README.md").read_text())
        finally:
            folder.end()


class ExampleFolder(Folder):
    """The folder of an example, with the home of its services elsewhere."""

    def __init__(self, path: Path, home: Path, environment: Mapping[str, str]) -> None:
        search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        super().__init__(
            path,
            {
                "POLOS_PRELOAD_MODELS": "1",
                **environment,
                "POLOS_HOME": str(home),
                "PATH": search,
                "PYTHONUNBUFFERED": "1",
            },
        )
        self._home = home

    @property
    def home(self) -> Path:
        return self._home

    def end(self) -> None:
        for script in self.scripts:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(script.process.pid, signal.SIGKILL)  # with what it forked
        super().end()


@dataclass(frozen=True)
class Frame:
    """One server-sent event."""

    id: str
    kind: str
    data: dict[str, Any]


def frames(response: httpx.Response) -> Iterator[Frame]:
    """Yield the events of a response as they come; comments and frames without data are none."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            if "data" in fields:
                yield Frame(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
            fields = {}


def all_frames(client: httpx.Client, path: str, *, after: str = "") -> list[Frame]:
    """Return the events of a stream, to its end."""
    with client.stream("GET", path, headers={"last-event-id": after} if after else {}) as response:
        assert response.status_code == 200, response.read()
        return list(frames(response))


def until_text(client: httpx.Client, path: str, text: str) -> list[Frame]:
    """Return the events of a stream until the text of an answer is `text`, and leave."""
    seen: list[Frame] = []
    with client.stream("GET", path) as response:
        for frame in frames(response):
            seen.append(frame)
            if text_of(seen) == text:
                return seen
    raise AssertionError(f"the stream ended before {text!r}: {text_of(seen)!r}")


def text_of(seen: list[Frame]) -> str:
    """Return the text that a reader has who drops what an attempt begins again."""
    turns: dict[int, str] = {}
    for frame in seen:
        step = frame.data.get("step", 0)
        if frame.kind in {"stream_start", "stream_reset"}:
            turns[step] = ""
        elif frame.kind == "text_delta":
            turns[step] += frame.data["content"]
    return "".join(turns.values())


# -- what the apps for chatting have in common


def start_run(visitor: httpx.Client, path: str, text: str) -> str:
    """Ask for an answer; return the path of its run."""
    response = visitor.post(path, json={"text": text})
    assert response.status_code == 202, response.text
    return f"{path}/{response.json()['run_id']}"


def check_a_broken_stream_goes_on(visitor: httpx.Client, model: ToldModel, path: str) -> None:
    """Leave a stream in the middle of an answer, and follow it from the last event."""
    speech = model.says("one two three four", held=True)
    events = f"{start_run(visitor, path, 'count')}/events"
    speech.allow(2)

    before = until_text(visitor, events, "one two ")
    speech.finish()
    after = all_frames(visitor, events, after=before[-1].id)

    assert text_of([*before, *after]) == "one two three four"
    assert after[-1].kind == "agent_finish"


def check_a_run_can_be_cancelled(visitor: httpx.Client, model: ToldModel, path: str) -> None:
    """Cancel an answer that never ends."""
    speech = model.says("never said", held=True)
    run = start_run(visitor, path, "go on")
    wait_until(speech.begun.is_set, seconds=60)

    assert visitor.post(f"{run}/cancel").json() == {"cancelled": True}
    assert all_frames(visitor, f"{run}/events")[-1].kind == "agent_cancel"
    assert visitor.get(run).json()["status"] == "cancelled"


def check_a_run_is_its_visitors_own(app: WebApp, visitor: httpx.Client, model: ToldModel, path: str) -> None:
    """Refuse others, unknown runs, and cursors that are none."""
    model.says("Hello.")
    run = start_run(visitor, path, "hello")
    all_frames(visitor, f"{run}/events")

    assert visitor.get(f"{path}/nothing/events").status_code == 404
    with app.visitor() as stranger:
        assert stranger.get(f"{run}/events").status_code == 404
    [refused] = all_frames(visitor, f"{run}/events", after="nonsense")
    assert refused.kind == "refused"
