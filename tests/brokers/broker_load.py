"""Workers under load while a broker goes away and comes back: what they owe, and what they said."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from scripts import Folder, Script

from polos import PolosClient
from polos.settings import Settings

PROGRAM = """
def write(name, run):
    with open(name, "a") as file:
        file.write(run + "\\n")

@workflow(id="load-child")
async def child(ctx: WorkflowContext, payload: dict):
    return await ctx.step.run("effect", write, "effects", payload["run"])

@workflow(id="load")
async def load(ctx: WorkflowContext):
    await ctx.step.run("begin", write, "begins", ctx.execution_id)
    await ctx.step.invoke_and_wait("child", child, {"run": ctx.execution_id})
    await ctx.step.run("finish", write, "finishes", ctx.execution_id)
    return "done"
"""
CELERY = str(Path(sys.executable).with_name("celery"))
PAUSE_SECONDS = 0.1
AWAY, BACK = "does not answer (", "answers again"


class Fleet:
    """Two workers and a client that keeps them busy."""

    def __init__(self, folder: Folder, client: PolosClient) -> None:
        self._folder = folder
        self._client = client
        self.workers: list[Script] = []
        self.accepted: list[str] = []

    def start_worker(self, **environment: str) -> Script:
        name = f"w{len(self.workers)}@here"
        options = ["-n", name, "-c", "4", "-l", "INFO"]
        worker = self._folder.command(CELERY, "-A", "polos", "worker", *options, **environment)
        self.workers.append(worker)
        return worker

    async def submit(self) -> str:
        handle = await self._client.invoke("load", None)
        self.accepted.append(handle.id)
        return handle.id

    @contextlib.asynccontextmanager
    async def submitting(self) -> AsyncIterator[None]:
        """Start a run every so often while the context lasts."""

        ends = False

        async def submit_all() -> None:
            while not ends:
                await self.submit()
                await asyncio.sleep(PAUSE_SECONDS)

        task = asyncio.create_task(submit_all())
        try:
            yield
        finally:
            ends = True  # not cancelled: a run may have been accepted whose id is not known yet
            await task

    async def until_completed(self, count: int, *, seconds: float = 60) -> None:
        """Return once so many runs have completed."""
        async with asyncio.timeout(seconds):
            while len(self.effects("finishes")) < count:
                await asyncio.sleep(0.02)

    async def seconds_to_complete(self, *, limit_seconds: float) -> float:
        """Submit a run and return how long it took."""
        began = time.monotonic()
        await self._client.wait(await self.submit(), timeout_seconds=limit_seconds)
        return time.monotonic() - began

    async def all_end(self, *, seconds: float) -> None:
        """Every accepted run completes, each effect having happened once."""
        async with asyncio.timeout(seconds):
            for run_id in self.accepted:
                assert (await self._client.wait(run_id))["status"] == "completed"

    def effects(self, name: str) -> Counter[str]:
        """Return how often each run left a line in a file."""
        file = self._folder.path / name
        return Counter(file.read_text().split()) if file.exists() else Counter()

    def amiss(self) -> list[tuple[str, str, int]]:
        """Return each effect of an accepted run that did not happen once, and how often it did."""
        return [
            (name, run, found[run])
            for name in ("begins", "effects", "finishes")
            for found in (self.effects(name),)
            for run in {*found, *self.accepted}
            if found[run] != 1
        ]

    @staticmethod
    def said(worker: Script, words: str) -> list[str]:
        return [line for line in worker.lines if words in line]


@contextlib.asynccontextmanager
async def fleet(environment: dict[str, str], *, celeryconfig: str = "") -> AsyncIterator[Fleet]:
    """A folder for workers, and a client."""
    with Folder.new({**environment, "POLOS_SWEEP_SECONDS": "0.2", "POLOS_IMPORTS": "load_program"}) as folder:
        folder.write("load_program.py", PROGRAM)
        (folder.path / "celeryconfig.py").write_text(celeryconfig)
        settings = Settings.from_environment(
            {**environment, "POLOS_HOME": str(folder.home), "POLOS_EMBEDDED_WORKER": "0"}
        )
        async with PolosClient(settings=settings) as client:
            yield Fleet(folder, client)


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError("the process has no memory")
