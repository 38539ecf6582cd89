"""Workers of one folder, clients of it, and a look into its journal."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts import Folder, Script, wait_until
from sqlalchemy import text
from sqlalchemy.engine import create_engine

PROGRAM = "fleet_program"
ASK = """
import asyncio, json, sys
from polos import BatchWorkflowInput, PolosClient

async def main(asked):
    async with PolosClient() as client:
        runs = [BatchWorkflowInput(id=name, payload=payload) for name, payload in asked]
        print(json.dumps([handle.id for handle in await client.batch_invoke(runs)]))

import fleet_program
asyncio.run(main(json.loads(sys.argv[1])))
"""
ENDED = ("completed", "failed", "cancelled", "blocked")


class Fleet:
    """What one test runs. Workers end with it."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        (folder.path / "ask.py").write_text(ASK)
        self._count = 0

    def worker(self, *options: str, pool: str = "asyncio", **variables: str) -> Script:
        """Start a Celery worker as users do, and return once it serves; its node name is `w1`, `w2`, …"""
        [worker] = self.workers(1, *options, pool=pool, **variables)
        return worker

    def workers(self, count: int, *options: str, pool: str = "asyncio", **variables: str) -> list[Script]:
        """Start several at once."""
        started = [self._launch(options, pool, variables) for _ in range(count)]
        for worker in started:
            worker.wait_for(" ready.", seconds=60)
        return started

    def _launch(self, options: tuple[str, ...], pool: str, variables: dict[str, str]) -> Script:
        self._count += 1
        celery = str(Path(sys.executable).with_name("celery"))
        command = [celery, "-A", "polos", "worker", "-l", "INFO", "-n", f"w{self._count}@fleet", *options]
        if pool != "asyncio":
            command += ["-P", pool]
        return self.folder.command(*command, POLOS_IMPORTS=PROGRAM, **variables)

    def start(self, *asked: tuple[str, Any], **variables: str) -> list[str]:
        """Start runs from a client process; return their ids."""
        script = self.folder.start("ask.py", json.dumps(asked), **variables)
        found: list[str] = json.loads(script.ends(seconds=60).splitlines()[-1])
        return found

    def results(self, runs: list[str], *, seconds: float = 60) -> list[Any]:
        """Return what runs came to, once all of them have completed."""
        wait_until(lambda: self._left(runs) == 0, seconds=seconds)
        rows = self.query("SELECT id, status, output, error FROM run")
        found = {row[0]: row for row in rows}
        assert all(found[run][1] == "completed" for run in runs), [found[run] for run in runs]
        return [json.loads(found[run][2]) for run in runs]

    def run(self, name: str, payload: Any = None) -> Any:
        """Start one run and return its result."""
        [result] = self.results(self.start((name, payload)))
        return result

    def _left(self, runs: list[str]) -> int:
        live = self.query("SELECT id FROM run WHERE finished_at IS NULL")
        return len({row[0] for row in live} & set(runs))

    def query(self, statement: str, **params: Any) -> list[tuple[Any, ...]]:
        """Read the journal."""
        with self._journal() as connection:
            return [tuple(row) for row in connection.execute(text(statement), params)]

    @contextlib.contextmanager
    def _journal(self) -> Iterator[Any]:
        url = self.folder.environment.get("POLOS_DATABASE_URL", f"sqlite:///{self.folder.home}/polos.db")
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.connect() as connection:
            yield connection
        engine.dispose()
