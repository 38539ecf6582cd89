"""Whoever can write to the broker of a worker, and what the worker made of it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nursery
import redis
from nursery import Process
from services import sqlite_url

from polos.client import PolosClient
from polos.journal.database import Database
from polos.journal.runs import READ_RUN, run_record
from polos.routes import DEFAULT_ROUTE, RUN_TASK
from polos.settings import Settings

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def wait_until(condition: Callable[[], object], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


class Crowd:
    """Forges messages to one worker, and reads its log, its journal and what was done."""

    def __init__(self, folder: Path, environment: Mapping[str, str], worker: Process) -> None:
        self.folder = folder
        self.environment = environment
        self.worker = worker
        self.broker = redis.Redis.from_url(
            environment.get("POLOS_REDIS_URL") or environment["POLOS_BROKER_URL"]
        )
        self._journal = Database(environment["POLOS_DATABASE_URL"]).connect()
        settings = Settings.from_environment(environment).with_values(embedded_worker="0")
        self.client = PolosClient(settings=settings).sync

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def ledger(self) -> list[str]:
        file = self.folder / "ledger"
        return file.read_text().splitlines() if file.exists() else []

    def wait_for(self, words: str) -> None:
        """Return once the worker's log has these words."""
        wait_until(lambda: words in self.log or self.worker.poll() is not None)
        assert words in self.log, self.log

    def run(self, run_id: str) -> dict[str, Any]:
        [row] = self._journal.read(READ_RUN, {"run": run_id})
        return run_record(row)

    def push(self, raw: bytes, *, queue: str = DEFAULT_ROUTE) -> None:
        """Put bytes into a queue, as whoever can reach the broker."""
        self.broker.lpush(queue, raw)

    def forge(
        self,
        args: object,
        kwargs: object = None,
        *,
        task: object = RUN_TASK,
        body: bytes | None = None,
        content_type: str = "application/json",
        task_id: str = "",
        **headers: object,
    ) -> str:
        """Send a message that is one of Celery's in form; return the id of its task."""
        task_id = task_id or str(uuid.uuid4())
        if body is None:
            body = json.dumps([args, kwargs or {}, {}]).encode()
        properties = {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": DEFAULT_ROUTE},
            "delivery_tag": str(uuid.uuid4()),
            "body_encoding": "base64",
        }
        message = {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": content_type,
            "headers": {"lang": "py", "task": task, "id": task_id, **headers},
            "properties": properties,
        }
        self.push(json.dumps(message).encode())
        return task_id

    def became(self, task_id: str) -> str:
        """Return what became of a task, once the worker has told."""
        told = re.compile(rf"\[{re.escape(task_id)}\] (?:succeeded in [\d.e-]+s: '(.*?)'|raised .*)")
        wait_until(lambda: told.search(self.log) or self.worker.poll() is not None)
        found = told.search(self.log)
        assert found is not None, self.log
        return found[1] or found[0]

    def refusals(self) -> int:
        """Return how many messages the worker has thrown away."""
        return self.log.count("thrown away")

    def is_well(self) -> None:
        """Check that the worker does its work as before."""
        assert self.worker.poll() is None, self.log
        name = uuid.uuid4().hex
        assert self.result(self.client.invoke("pay", {"to": name}).id) == name
        assert self.ledger.count(f"paid {name}") == 1

    def result(self, run_id: str) -> Any:
        wait_until(lambda: self.run(run_id)["finished_at"])
        return self.client.get_result(run_id)["result"]

    def close(self) -> None:
        self.client.close()
        self.broker.close()
        self._journal.close()


@contextmanager
def crowd_in(
    folder: Path, valkey_url: str, *options: str, crowd_of: type[Crowd] = Crowd, **settings: str
) -> Iterator[Crowd]:
    """Run a worker that offers what `secured` defines, on SQLite, while the context lasts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POLOS_")}
    environment = {
        **kept,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}",
        "POLOS_DATABASE_URL": sqlite_url(folder),
        "POLOS_BROKER_URL": f"{valkey_url}/11",
        "POLOS_REDIS_PREFIX": "security:",
        "POLOS_PRELOAD_MODELS": "0",
        "POLOS_MAX_RETRIES": "0",
        "LEDGER": str(folder / "ledger"),
        **settings,
    }
    command = [sys.executable, "-m", "polos.cli.main", "worker", "secured", "--loglevel", "info", *options]
    with (folder / "log").open("w") as log:
        worker = nursery.start(command, cwd=folder, env=environment, stdout=log, stderr=log)
    crowd = crowd_of(folder, environment, worker)
    try:
        crowd.wait_for(" ready.")
        yield crowd
    finally:
        crowd.close()
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)  # with the processes of a prefork pool
        worker.wait()
