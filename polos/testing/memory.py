"""What stands in memory for database, Redis, broker and workers, and the client's way to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from polos.backend import ClientBackend
from polos.direct import DirectTransport
from polos.dispatch import Doorbell
from polos.encryption import codec_of
from polos.engine.runtime import Models
from polos.journal.in_memory import MemoryDatabase
from polos.settings import Settings
from polos.streaming.bus import Bus
from polos.streaming.in_memory import MemoryBus, MemoryServer
from polos.testing.clock import MovableClock
from polos.testing.worker import MemoryWorker


class Memory:
    """An installation in memory. Its worker starts on the event loop that uses it first."""

    def __init__(
        self, settings: Settings, models: Models, clock: MovableClock, journal: bytes | None = None
    ) -> None:
        self.settings = settings
        self.database = MemoryDatabase(clock.time, journal, codec=codec_of(settings.encryption_keys))
        self.server = MemoryServer(clock)
        self.worker = MemoryWorker(settings, self.database, self.server, models, clock)
        self.backend = MemoryBackend(self, clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started: asyncio.Task[None] | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The worker's event loop, once there is one."""
        return self._loop

    async def start(self) -> None:
        """Return when the worker serves.

        Raises:
            RuntimeError: The event loop it was started on has ended.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self.backend.connect()
            await self.worker.start()
        elif self._loop.is_closed():
            raise RuntimeError(
                "This runtime in memory began on an event loop that has ended since: open one for each test, "
                "or have the tests that share it share their event loop"
            )

    async def stop(self) -> None:
        """End the worker, on its own loop, and give everything up."""
        if self._loop is not None:
            await self.backend.leave_loop()
            await self.worker.stop()
        self.drop()

    def drop(self) -> None:
        """Give everything up, where the loop has ended before."""
        self.database.close()


class MemoryBackend(ClientBackend):
    """The connections of a client to an installation in memory."""

    def __init__(self, memory: Memory, clock: MovableClock) -> None:
        self._memory = memory
        super().__init__(memory.settings, clock=clock)

    def connect(self) -> None:
        """Have a connection to the journal."""
        with self._lock:
            self._database = self._memory.database
            self._connected()

    def start_worker(self) -> None:
        """Have the worker offer what was defined since."""
        with self._lock:
            self._memory.worker.offer_again(self._connected())

    def _new_bus(self) -> Bus:
        return MemoryBus(self._memory.server)

    def _send(self, doorbells: Sequence[Doorbell]) -> None:
        self._memory.worker.ring(*doorbells)


class MemoryTransport(DirectTransport):
    """The way of a client to an installation in memory, from any event loop."""

    def __init__(self, memory: Memory, *, project_id: str) -> None:
        super().__init__(memory.settings, project_id=project_id, deployment_id=None, backend=memory.backend)
        self._memory = memory

    async def backend(self) -> ClientBackend:
        """Return the connections, with a worker behind them."""
        await self._memory.start()
        return await super().backend()
