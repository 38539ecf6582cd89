"""A `celery worker` process under test, and how tests wait for what it does."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nursery

HERE = Path(__file__).parent


def wait_until(condition: Callable[[], Any], *, seconds: float = 10) -> Any:
    """Return the first true answer; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)
    return answer


def unacknowledged(broker: Any, queue: str) -> int:
    """How many messages of a queue some worker has taken and not acknowledged."""
    return sum(queue.encode() in message for message in broker.hvals("unacked"))


class Worker:
    """A `celery worker` process on a queue of its own."""

    def __init__(
        self, pool_app: ModuleType, *, concurrency: int, queue: str, log: Path, env: dict[str, str]
    ) -> None:
        self.queue, self.log, self._app = queue, log, pool_app.app
        self.node = f"{uuid.uuid4().hex[:8]}@test"
        command = [sys.executable, "-m", "celery", "-A", "pool_app", "worker", "-l", "INFO", "-n", self.node]
        command += ["-c", str(concurrency), "-Q", queue, "--without-gossip", "--without-mingle"]
        with log.open("wb") as output:
            self.process = nursery.start(
                command, env={**os.environ, **env}, cwd=HERE, stdout=output, stderr=subprocess.STDOUT
            )
        wait_until(self._is_ready, seconds=20)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return " ready." in self.log.read_text()

    def pool(self) -> dict[str, Any]:
        """The pool's part of `inspect stats`."""
        return dict(self.inspect("stats")["pool"])

    def inspect(self, what: str) -> Any:
        """This worker's answer to one of Celery's `inspect` commands."""
        # On a connection of its own: a pooled one goes on popping replies after the answer.
        with self._app.connection_for_write() as connection:
            ask = self._app.control.inspect([self.node], timeout=5, limit=1, connection=connection)
            return getattr(ask, what)()[self.node]

    def send(self, task: Any, *args: Any, **options: Any) -> Any:
        return task.apply_async(args, queue=self.queue, **options)

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        """Signal the worker; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        return self.process.wait(15)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
