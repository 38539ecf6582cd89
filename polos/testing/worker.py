"""A worker without Celery: the engine of every worker, its doorbells answered at once on the running loop."""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from polos.agents.rate_limits import RateLimits
from polos.dispatch import Doorbell
from polos.engine.runtime import Models, NoSlot, Runtime, worker_channel
from polos.engine.tasks import (
    DurableFuture,
    Task,
    install_task_factory,
    is_suspended,
    only_waits,
    start_apart,
    waiter_of,
)
from polos.journal.allowances import JournalAllowances
from polos.journal.database import Connection
from polos.journal.in_memory import MemoryDatabase
from polos.journal.liveness import NO_LOCK
from polos.journal.upcoming import READ_UPCOMING
from polos.journal.workers import READ_CLOCK, SeenWorker, beat
from polos.journal.writer import Journal
from polos.routes import DEFAULT_ROUTE, Routes
from polos.settings import Settings
from polos.streaming.feed import Feed
from polos.streaming.in_memory import MemoryBus, MemoryServer, NoSharedAllowances
from polos.testing.clock import ClockFuture, MovableClock
from polos.worker.audit import Audit
from polos.worker.consuming import defined_routes
from polos.worker.definitions import resolve
from polos.worker.doorman import Doorman
from polos.worker.drain import drain
from polos.worker.registration import Registration, certainly
from polos.worker.serving import serve_run, serve_turn
from polos.worker.sweeper import Sweeper

logger = logging.getLogger("polos.testing")

HOSTNAME = "polos-testing@memory"
LOOK_SECONDS = 1.0  # between looks at what is due, and beats
SHORTEST_PAUSE_SECONDS = 0.005  # between those that nobody asked for
QUIET_TURNS = 8  # loop turns without anything to do: what was on its way has arrived
QUICK_TURNS = 200  # without a pause, while things settle
PAUSE_SECONDS = 0.001
PATIENCE_SECONDS = 1.0  # without a write, while code awaits something of its own
AGAIN_SECONDS = 0.02  # the same for code that has been waited for before, and awaits what it did then
STILL_TURNS = 50  # in which nothing moved, however slow the machine is
Futures = set[asyncio.Future[Any] | None]
PAST_SECONDS = 0.001  # beyond a moment, so that it is surely past


class MemoryWorker:
    """Serves what this process defines, on the loop it is started on.

    `ring`, `offer_again` and `wake` may be called from any thread.
    """

    def __init__(
        self,
        settings: Settings,
        database: MemoryDatabase,
        server: MemoryServer,
        models: Models,
        clock: MovableClock,
    ) -> None:
        self._settings = settings
        self._database = database
        self._server = server
        self._models = models
        self._clock = clock
        self._id = uuid.uuid4().hex
        self._routes = Routes(None)
        self._connection = database.connect()
        self._doorman = _Doorman(Doorman(database, self, settings), self)
        self._sweeper = Sweeper(
            database,
            NobodyDies(),
            self,
            self._routes,
            settings,
            revive=lambda: None,
            nudge=self._nudge,
            admit=self._doorman.look,
            monotonic=clock.monotonic,
        )
        self._serving: dict[Task, tuple[str, str]] = {}  # task -> run id, and the turn's name or nothing
        self._left_alone: dict[Task, Futures] = {}
        self._is_ending = False

    # -- life

    async def start(self) -> None:
        """Begin to serve on the running loop."""
        self.loop = asyncio.get_running_loop()
        install_task_factory(self.loop)
        self._wanted = asyncio.Event()
        self._bus = MemoryBus(self._server)
        self._runtime = self._new_runtime()
        self._registration = self._new_registration()
        self._registration.enter(self._id, self._connection)
        self._bus.listen(worker_channel(self._id), self._nudged)
        self._audit = Audit(self._runtime)
        self._audit.start()
        self._keeper = start_apart(self._keep(), name="polos-keeper")
        self._clock.keep(self)

    async def stop(self) -> None:
        """Put every run away and end."""
        self._is_ending = True
        self._clock.keep(None)
        self._keeper.cancel()
        await drain(self._runtime, grace_seconds=0.0)
        for task in self._serving:
            task.cancel()
        await asyncio.gather(self._keeper, *self._serving, return_exceptions=True)
        await self._audit.stop()
        await self._runtime.resources.close()
        await self._runtime.journal.close()
        await self._bus.close()

    def _new_runtime(self) -> Runtime:
        settings = self._settings
        feed = Feed(
            self._bus,
            keep_seconds=settings.stream_keep_seconds,
            max_entries=settings.stream_max_entries,
            clock=self._clock,
        )
        journal = Journal.open(self._database)
        return Runtime(
            settings=settings,
            journal=journal,
            nudges=self._bus,
            feed=feed,
            dispatcher=self,
            routes=self._routes,
            serves=_Everything(),
            resolve=resolve,
            worker_id=self._id,
            project=settings.project_id,
            deployment=settings.deployment_id,
            may_start=_at_once,
            doorman=self._doorman,
            published=lambda project, topic: self.wake(),
            look_in=lambda seconds: self.wake(),
            models=self._models,
            clock=self._clock,
            rate_limits=self._new_rate_limits(journal),
        )

    def _new_rate_limits(self, journal: Journal) -> RateLimits:
        stored = JournalAllowances(journal, self._settings.project_id)
        shared = NoSharedAllowances()
        return RateLimits(shared, stored, self._settings, self._clock, tell=lambda notice: None)

    def _new_registration(self) -> Registration:
        return Registration(
            self._settings,
            self._routes,
            hostname=HOSTNAME,
            kind="embedded",
            concurrency=self._settings.embedded_concurrency,
            served=defined_routes(self._routes) | {DEFAULT_ROUTE},
        )

    def offer_again(self, connection: Connection) -> None:
        """Offer what was defined since, by way of a connection of the caller's."""
        registration = self._new_registration()
        [(now, _)] = connection.read(READ_CLOCK, {})
        for unit in registration.offer_again(self._id, now):
            certainly(connection, unit)
        self._doorman.look()

    # -- doorbells

    def ring(self, *doorbells: Doorbell) -> None:
        """Answer doorbells, soon."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._answer, doorbells)

    def _answer(self, doorbells: Sequence[Doorbell]) -> None:
        for bell in doorbells:
            if not self._is_ending:
                task = start_apart(self._serve(bell), name=f"{bell.task} {bell.label}")
                self._serving[task] = (bell.run_id, bell.step or "")
                task.add_done_callback(self._served)

    async def _serve(self, bell: Doorbell) -> None:
        if bell.step is None:
            await serve_run(self._runtime, bell.run_id, NoSlot(), label=bell.label)
        else:
            await serve_turn(self._runtime, bell.run_id, bell.step, NoSlot(), label=bell.label)

    def _served(self, task: Task) -> None:
        del self._serving[task]
        self._left_alone.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("A doorbell could not be answered", exc_info=error)

    def _nudge(self, owner: str, run_id: str) -> None:
        self._audit.look_at(run_id)

    def _nudged(self, run_id: str) -> None:
        self._audit.look_at(run_id)

    # -- the duties of every worker

    def wake(self) -> None:
        """Look at what is due, soon."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._wanted.set)

    async def _keep(self) -> None:
        while True:
            self._look_after()
            self._wanted.clear()
            rests = min(self._sweeper.rests_seconds, self._doorman.rests_seconds, LOOK_SECONDS)
            pause = max(rests, SHORTEST_PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wanted.wait()

    def _look_after(self) -> None:
        try:
            self._connection.commit([beat(self._id)])
            self._sweeper.look_everywhere()
            self._sweeper.sweep()
            self._doorman.look_where_wanted()
        except Exception:
            logger.exception("A sweep failed; the next one tries again")

    # -- time

    async def live_through(self, seconds: float) -> None:
        """Move the clock, and do all that comes due on the way."""
        clock = self._clock
        end = clock.monotonic() + seconds
        await self.settle()
        while (left := end - clock.monotonic()) > 0:
            self._move(min(self._until_next() + PAST_SECONDS, left))
            await self.settle()

    def _move(self, seconds: float) -> None:
        with self._database.turn:  # nobody sees the time without the beat
            self._clock.move(seconds)
            self._connection.commit([beat(self._id)])
        self._doorman.look()
        self.wake()

    def _until_next(self) -> float:
        now: float
        now, *moments = self._connection.read(READ_UPCOMING, {})[0]
        due = min((moment for moment in moments if moment is not None), default=math.inf)
        return max(min(due - now, self._clock.rests_seconds()), 0.0)

    async def settle(self) -> None:
        """Return when nothing can go on unless time passes, or something happens outside."""
        quiet = turns = still = 0
        seen: object = None
        since = self.loop.time()
        while quiet < QUIET_TURNS:
            turns += 1
            await asyncio.sleep(0 if turns < QUICK_TURNS else PAUSE_SECONDS)
            busy = self._busy()
            quiet = 0 if busy or self._has_work() else quiet + 1
            now_seen = (self._runtime.journal.writer.units, busy.keys())
            still += 1
            if now_seen != seen:
                seen, since, still = now_seen, self.loop.time(), 0
            patience = AGAIN_SECONDS if busy == self._left_alone else PATIENCE_SECONDS
            if busy and still > STILL_TURNS and self.loop.time() - since > patience:
                self._left_alone = busy
                return

    def _has_work(self) -> bool:
        idle = self._runtime.journal.writer.is_idle and not self._wanted.is_set()
        return not idle or self._clock.rests_seconds() <= 0

    def _busy(self) -> dict[Task, Futures]:
        """Return what waits for neither journal nor clock, and what it is held up by."""
        return {
            task: self._held_by(task, *place)
            for task, place in self._serving.items()
            if not self._waits(task, *place)
        }

    def _held_by(self, task: Task, run_id: str, step: str) -> Futures:
        execution = None if step else self._runtime.executions.get(run_id)
        call = self._runtime.turns.get((run_id, step))
        tasks = execution.tasks if execution is not None else {call or task}
        return {waiter_of(each) for each in tasks}

    def _waits(self, task: Task, run_id: str, step: str) -> bool:
        if not is_suspended(task):
            return False
        if step:
            call = self._runtime.turns.get((run_id, step))
            return call is not None and not call.done() and only_waits([call], ClockFuture)
        execution = self._runtime.executions.get(run_id)
        return execution is not None and only_waits(execution.tasks, (ClockFuture, DurableFuture))


class NobodyDies:
    """The locks of workers where there is one, which lives as long as its journal."""

    def hold(self, worker_id: str, connection: Connection) -> bool:
        """Return that the lock is held."""
        return True

    def lock_key(self, worker_id: str) -> int:
        """Return that it has no key."""
        return NO_LOCK

    def free(self, workers: Sequence[SeenWorker], connection: Connection) -> set[str]:
        """Return that none is free."""
        return set()

    def server_up_seconds(self, connection: Connection) -> float:
        """Return that no server drops locks."""
        return math.inf

    def forget(self, worker_id: str) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""


class _Doorman:
    """A doorman whose looks are made by the worker's loop."""

    def __init__(self, inner: Doorman, worker: MemoryWorker) -> None:
        self._inner = inner
        self._worker = worker

    def claimed(self, route: str | None, queue: str | None) -> None:
        self._inner.claimed(route, queue)
        self._worker.wake()

    def is_limited(self, queue: str) -> bool:
        return self._inner.is_limited(queue)

    def look_at(self, queue: str, concurrency_key: str | None) -> None:
        self._inner.look_at(queue, concurrency_key)
        self._worker.wake()

    def look(self) -> None:
        self._inner.look()
        self._worker.wake()

    def look_where_wanted(self) -> None:
        self._inner.look_where_wanted()

    @property
    def rests_seconds(self) -> float:
        return self._inner.rests_seconds


class _Everything:
    """All routes there are."""

    def __contains__(self, route: object) -> bool:
        return True


async def _at_once(*_: Any) -> None:
    return
