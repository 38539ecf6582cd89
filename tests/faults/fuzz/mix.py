"""Mixed faults: one after the other, some overlapping, by a seed, while programs run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from arena import Arena
from broker_kinds import REDIS
from crew import name_of
from echo import Echo
from processes import Worker

FROZEN_SECONDS = 3.0  # beyond the silence limit
ECHO_SECONDS, LATE_SECONDS = 6.0, 5.0
EXIT_SECONDS = 60.0
LOOK_SECONDS = 3.0
PAUSE_SECONDS = 1.2  # between two faults, on average


class Mix:
    """The faults there are; `struck` counts them. Each method is a kind, by its name."""

    def __init__(self, arena: Arena, chance: random.Random) -> None:
        self._arena = arena
        self._chance = chance
        self._frozen: set[Worker] = set()
        self._later: list[asyncio.Task[None]] = []
        self._echo: Echo | None = None
        self.struck: list[tuple[str, float]] = []  # kind, and when it began

    @contextlib.asynccontextmanager
    async def under_way(self, kinds: Sequence[str]) -> AsyncIterator[None]:
        """Let faults of these kinds happen while the context lasts, each once at least; then undo all."""
        striking = asyncio.create_task(self._strike(kinds))
        try:
            yield
            await self.until_each_struck(kinds, striking)
        finally:
            striking.cancel()
            results = await asyncio.gather(striking, return_exceptions=True)
            await asyncio.gather(*self._later)
            self._end_echo()
        for error in results:
            if isinstance(error, Exception):
                raise error

    async def until_each_struck(self, kinds: Sequence[str], striking: asyncio.Task[None]) -> None:
        def done() -> bool:
            return striking.done() or {kind for kind, _ in self.struck} >= set(kinds)

        await self._arena.until(done, 60.0 * len(kinds), "not every kind of fault has struck")

    async def _strike(self, kinds: Sequence[str]) -> None:
        while True:
            order = list(kinds)
            self._chance.shuffle(order)
            for kind in order:
                await asyncio.sleep(self._chance.uniform(0.4, 1.6) * PAUSE_SECONDS)
                began = time.time()
                fault: Callable[[], Awaitable[None]] = getattr(self, kind)
                await asyncio.shield(asyncio.ensure_future(fault()))  # once begun, it is finished
                self.struck.append((kind, began))

    # -- kinds

    async def kill(self) -> None:
        """Kill a worker, and its whole process group, with SIGKILL; hire another one."""
        self._arena.crew.kill(self._victim())
        await self._arena.hire()

    async def term(self) -> None:
        """Ask a worker to end, as a deployment does, and hire another one."""
        worker = self._victim()
        self._arena.crew.dismiss(worker)
        self._soon(self._has_ended(worker))
        await self._arena.hire()

    async def stop(self) -> None:
        """Stop a worker for longer than the silence limit; then it goes on."""
        worker = self._victim()
        self._arena.crew.freeze(worker)
        if not await self._arena.is_writable():  # it was stopped in a commit: no SQLite survives that
            self._arena.crew.kill(worker)
            await self._arena.hire()
            return
        self._frozen.add(worker)
        limit = self._arena.client.settings.silence_limit_seconds
        self._soon(self._thawed(worker, limit + self._chance.uniform(0.3, 1.0) * FROZEN_SECONDS))

    async def flush(self) -> None:
        """Empty the broker."""
        await asyncio.to_thread(self._arena.broker.forget)

    async def broker(self) -> None:
        """Kill the broker; start an empty one at the same place a little later."""
        self._end_echo()
        await asyncio.to_thread(self._arena.broker.kill)
        await asyncio.sleep(self._chance.uniform(0.5, 3.0))
        await asyncio.to_thread(self._arena.broker.start)

    async def postgres(self) -> None:
        """Restart PostgreSQL, as in a crash or gently."""
        self._arena.disconnect()
        mode = self._chance.choice(["immediate", "fast"])
        await asyncio.to_thread(self._arena.site.server.restart, mode)

    async def echo(self) -> None:
        """Deliver each message three times for a while, late and in any order."""
        self._end_echo()
        seed = self._chance.randrange(1 << 30)
        self._echo = Echo(self._arena.broker.redis.port, late_seconds=LATE_SECONDS, seed=seed)
        self._soon(self._falls_silent(self._echo))

    async def block(self) -> None:
        """Have the next side effect on a loop block it for longer than the silence limit."""
        await asyncio.to_thread(Path(self._arena.environment["FAULT_LEDGER"], "block").touch)

    # -- parts

    def _victim(self) -> Worker:
        dismissed = self._arena.crew.dismissed
        living = self._arena.crew.living
        return self._chance.choice(
            [worker for worker in living if worker not in self._frozen and name_of(worker) not in dismissed]
        )

    async def _thawed(self, worker: Worker, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._arena.crew.thaw(worker)
        self._frozen.discard(worker)

    async def _has_ended(self, worker: Worker) -> None:
        code = await self._arena.exited(worker, EXIT_SECONDS)
        if code is None:
            os.kill(worker.pid, signal.SIGUSR1)  # has Celery write down where every thread is
            await self._arena.exited(worker, LOOK_SECONDS)
        if code != 0:
            self._arena.miss("exit", f"{worker.name} ended with {code}")

    async def _falls_silent(self, echo: Echo) -> None:
        await asyncio.sleep(ECHO_SECONDS)
        if self._echo is echo:
            self._end_echo()

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        self._later.append(asyncio.create_task(work))

    def _end_echo(self) -> None:
        if self._echo is not None:
            self._echo.end()
            self._echo = None


KINDS = ("kill", "stop", "flush", "broker", "postgres", "echo", "block", "term")


def kinds_for(arena: Arena) -> list[str]:
    """Return which of the wanted kinds there can be here."""
    wanted = list(arena.plan.mix or KINDS)
    if arena.site.server is None:
        wanted = [kind for kind in wanted if kind != "postgres"]
    if arena.plan.broker != REDIS:
        wanted = [kind for kind in wanted if kind != "echo"]
    return wanted
