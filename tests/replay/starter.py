"""Starts the runs to record, with polos of whatever version is on the path: ``python starter.py early|late``.

Returns when the early ones have ended, or stand where they are to be recorded.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import Any

from recorded import Start

from polos import PolosClient
from polos.journal.schema import HEAD

PATIENCE_SECONDS = 60.0
QUIET_SECONDS = 2.0  # without a new outcome: what is half-way hangs where it is meant to
LIVE = ("queued", "running", "waiting")


class Starter:
    """Starts runs and looks at their rows."""

    def __init__(self) -> None:
        self._client = PolosClient()
        path = os.environ["POLOS_DATABASE_URL"].removeprefix("sqlite:///")
        self._rows = sqlite3.connect(path, isolation_level=None)

    async def start(self, key: str, start: Start) -> None:
        handle = await self._client.invoke(
            start.name, start.payload, session_id=start.session, idempotency_key=key
        )
        if start.late:
            return
        if start.becomes in LIVE:
            await self._begun(handle.id)
            return
        wanted = "running" if start.action == "cancel" else start.becomes
        await self._until(lambda: self._row(handle.id)[0] == wanted, key, handle.id)
        await self._act(start, handle.id, key)

    async def _act(self, start: Start, run_id: str, key: str) -> None:
        client: Any = self._client
        if start.action == "cancel":
            await self._until(lambda: self._row(run_id)[2] >= 1, key, run_id)
            await client.cancel_execution(run_id)
            await self._until(lambda: self._row(run_id)[0] == "cancelled", key, run_id)
        elif start.action == "retry":
            await client.retry(run_id)
            await self._until(lambda: self._row(run_id)[0] == "completed", key, run_id)
        elif start.action == "fork":
            fork = await client.fork(run_id, "two", idempotency_key=f"{key}.fork")
            await self._until(lambda: self._row(fork.id)[0] == "completed", key, fork.id)

    async def _begun(self, run_id: str) -> None:
        """Wait until a run is claimed; one that another keeps out of its queue is not."""
        end = time.monotonic() + QUIET_SECONDS
        while self._row(run_id)[1] == 0 and time.monotonic() < end:
            await asyncio.sleep(0.02)

    async def quiet(self) -> None:
        """Wait until nothing gets on any more."""
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            (now,) = self._rows.execute("SELECT sum(seq) FROM run").fetchone()
            if now != seen:
                seen, since = now, time.monotonic()
            await asyncio.sleep(0.05)

    async def _until(self, condition: Callable[[], bool], key: str, run_id: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"{key} stands at {self._row(run_id)}")
            await asyncio.sleep(0.02)

    def _row(self, run_id: str) -> Any:
        query = "SELECT status, attempt, seq, error FROM run WHERE id = ?"
        return self._rows.execute(query, (run_id,)).fetchone()

    async def close(self) -> None:
        await self._client.close()


async def main(when: str) -> None:
    starter = Starter()
    for module in os.environ["POLOS_IMPORTS"].split(","):
        for number, start in enumerate(importlib.import_module(module).STARTS):
            if start.since <= HEAD and start.late == (when == "late"):
                await starter.start(f"{module}.{number} {start.name}", start)
    if when == "early":
        await starter.quiet()
    await starter.close()


asyncio.run(main(sys.argv[1]))
