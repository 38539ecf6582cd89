"""Our tasks on Celery's own pools: bodies are driven on a loop beside the threads or processes of the pool.

A process of such a pool has its own worker service. A run that only waits is parked at once, which ends its
task; the next doorbell replays it. Code that waits for a child in a way that cannot be parked (with a time
limit, a lock of its own) ends its task, too, and goes on beside the pool: its child must not wait for its
thread or process.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from celery import Celery

from polos.errors import JournalUnavailableError
from polos.worker.loop_thread import LoopThread
from polos.worker.service import WorkerService
from polos.worker.slots import Slot, Slots, enter_slot

logger = logging.getLogger("polos.worker")

HOST = "polos_host"  # attribute of the app in a process that executes tasks of a stock pool
NOT_READY = "not ready"
GOES_ON = "goes on without its task"
READY_SECONDS = 30.0  # a task waits so long for the service of its process, then is rung again
RETRY_SECONDS = 1.0  # while the database is away
STOP_SECONDS = 2.0


class ParkingSlot(Slot):
    """The slot of a body on a stock pool. Its run is parked instead of lending it, where that can be."""

    parks = True

    def __init__(self, slots: Slots, *, on_lent: Callable[[], None]) -> None:
        super().__init__(slots)
        self._on_lent = on_lent

    def yield_(self) -> None:
        """Give the slot to others; the task ends, as its thread or process is needed, too."""
        if self.held and not self._closed:
            self._on_lent()
        super().yield_()


class StockHost:
    """The worker service of one process, and the loop its bodies run on.

    Args:
        new_service: Makes the service, which is started here.
        concurrency: Bodies that execute at once.
    """

    def __init__(self, app: Celery, new_service: Callable[[], WorkerService], *, concurrency: int) -> None:
        self._app = app
        self._new_service = new_service
        self._loop = LoopThread("polos-loop", initializer=app.set_current)
        self._slots = Slots(concurrency)
        self._service: WorkerService | None = None
        self._ready = threading.Event()  # to execute, or to end
        self._ending = threading.Event()
        self._changing = threading.Lock()

    @property
    def service(self) -> WorkerService | None:
        """The service while it serves."""
        return self._service

    def start(self) -> None:
        """Serve from now on.

        Raises:
            JournalUnavailableError: The database does not answer.
        """
        with self._changing:
            if self._ending.is_set():
                return
            if not self._loop.is_alive:
                self._loop.start()
            service = self._new_service()
            service.start(self._loop.loop, self._loop.run)
            self._service = service
            self._ready.set()

    def start_soon(self) -> None:
        """Serve as soon as the database answers; returns at once."""
        threading.Thread(target=self._start_when_possible, name="polos-start", daemon=True).start()

    def _start_when_possible(self) -> None:
        while not self._ending.is_set():
            try:
                self.start()
                return
            except JournalUnavailableError as error:
                logger.warning("This process cannot serve yet: %s", error)
            except Exception:
                logger.exception("This process cannot serve yet")
            self._ending.wait(RETRY_SECONDS)

    def run(self, body: Coroutine[Any, Any, Any]) -> Any:
        """Execute a task's body, from the thread that has to wait for it; return what the task returns."""
        if not self._ready.wait(READY_SECONDS) or self._service is None:
            body.close()
            return NOT_READY
        result: Future[Any] = Future()
        done = asyncio.run_coroutine_threadsafe(self._execute(body, result), self._loop.loop)
        done.add_done_callback(lambda ended: _settle(result, ended))
        return result.result()

    async def _execute(self, body: Coroutine[Any, Any, Any], result: Future[Any]) -> Any:
        try:
            await self._slots.acquire()
        except BaseException:
            body.close()
            raise
        slot = ParkingSlot(self._slots, on_lent=lambda: _let_go(result))
        enter_slot(slot)
        try:
            return await body
        finally:
            slot.close()

    def drain(self, grace_seconds: float | None = None) -> None:
        """Hand every run back and end; a second call waits until the first is done.

        Args:
            grace_seconds: For what executes; None for the configured one.
        """
        self._ending.set()
        with self._changing:
            service, self._service = self._service, None
            if service is not None:
                service.drain(grace_seconds)
            self._ready.set()
            self._loop.stop(STOP_SECONDS)


def _let_go(result: Future[Any]) -> None:
    if not result.done():
        result.set_result(GOES_ON)


def _settle(result: Future[Any], ended: Future[Any]) -> None:
    """Pass on how a body ended; a body that went on without its task has nobody to tell."""
    if result.done():
        if not ended.cancelled() and (error := ended.exception()) is not None:
            logger.info("A run that went on without its task: %s", error)
    elif ended.cancelled():
        result.set_result(NOT_READY)
    elif (error := ended.exception()) is not None:
        result.set_exception(error)
    else:
        result.set_result(ended.result())
