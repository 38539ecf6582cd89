"""Everything a worker process runs besides Celery: registration, beat, sweeper, audit, drain."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection, Container, Coroutine
from functools import partial
from typing import Any

from celery import Celery

from polos.agents.rate_limits import PAUSES_CHANNEL, RateLimits
from polos.clock import SYSTEM_CLOCK
from polos.connections import Connections
from polos.dispatch import Dispatcher, DispatchThread, Sender
from polos.engine.runtime import Runtime, worker_channel
from polos.engine.tasks import install_task_factory, start_apart
from polos.journal import schema
from polos.journal.allowances import JournalAllowances
from polos.journal.key_check import check_key
from polos.journal.liveness import liveness_for
from polos.journal.workers import (
    READ_CLOCK,
    remove_worker,
    start_draining,
)
from polos.journal.writer import Journal
from polos.models import call as models
from polos.routes import Routes
from polos.settings import Settings
from polos.streaming.allowances import SharedAllowances
from polos.streaming.bus import Bus
from polos.streaming.feed import Feed
from polos.threads import DaemonThreads
from polos.worker.audit import Audit
from polos.worker.consuming import Consumed
from polos.worker.definitions import resolve
from polos.worker.doorman import Doorman
from polos.worker.drain import drain
from polos.worker.heartbeat import LOOK_AGAIN_SECONDS, Heartbeat
from polos.worker.loop_watch import LoopWatch
from polos.worker.losses import drop, find_lost
from polos.worker.preloading import preload_in_background
from polos.worker.registration import Registration
from polos.worker.sweeper import Sweeper

logger = logging.getLogger("polos.worker")

STOP_SECONDS = 5.0  # for each part of the end of a worker, while the database is away


class WorkerService:
    """One worker process's share in the fleet. `start` and `drain` are called beside the loop's thread."""

    def __init__(
        self,
        app: Celery,
        connections: Connections,
        settings: Settings,
        *,
        hostname: str,
        kind: str,
        concurrency: int,
        routes: Collection[str],
        drain_seconds: float,
        deliver_locally: Callable[..., Dispatcher] | None = None,
    ) -> None:
        self._app = app
        self._connections = connections
        self._settings = settings
        self._routes = routes
        self._drain_seconds = drain_seconds
        self._deliver_locally = deliver_locally
        self._routing = Routes(app)
        self._registration = Registration(
            settings, self._routing, hostname=hostname, kind=kind, concurrency=concurrency, served=routes
        )
        self._liveness = liveness_for(connections.database)
        self._dispatcher = DispatchThread(Sender(app), connections.broker_outage.report)
        self._heartbeat = Heartbeat(
            connections.direct_database,
            self._liveness,
            beat_seconds=settings.beat_seconds,
            silence_limit_seconds=settings.silence_limit_seconds,
            on_declared_dead=self._on_declared_dead,
        )
        self._doorman = Doorman(connections.database, self._dispatcher, settings)
        self._sweeper = Sweeper(
            connections.database,
            self._liveness,
            self._dispatcher,
            self._routing,
            settings,
            revive=connections.revive,
            nudge=self._nudge,
            admit=self._doorman.look,
            is_heard_of=lambda: self._heartbeat.is_fresh,
        )
        self._run_coroutine: Callable[..., Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bus: Bus | None = None
        self._audit: Audit | None = None
        self._watch: LoopWatch | None = None
        self.runtime: Runtime | None = None

    # -- life

    def start(self, loop: asyncio.AbstractEventLoop, run_coroutine: Callable[..., Any]) -> None:
        """Register the worker and make it ready to execute runs on `loop`.

        Raises:
            SchemaVersionError, EncryptionError, JournalUnavailableError: The journal cannot be used.
        """
        self._loop, self._run_coroutine = loop, run_coroutine
        schema.prepare(self._connections.database)
        check_key(self._connections.database)
        self._heartbeat.worker_id = _new_worker_id()
        self._register()
        run_coroutine(self._start_on_loop(), timeout_seconds=30.0)
        self._heartbeat.start(self._heartbeat.worker_id)
        self._sweeper.start()
        self._doorman.start()
        if self._settings.preload_models == "1":
            preload_in_background(self._registration.offers())

    def drain(self, grace_seconds: float | None = None) -> None:
        """Hand every run back and take this worker out of the fleet.

        Args:
            grace_seconds: For what executes; None for the one of this worker.
        """
        if self._run_coroutine is None or self.runtime is None:
            return
        runtime, self.runtime = self.runtime, None
        worker_id = runtime.worker_id
        runtime.draining = True
        self._within(STOP_SECONDS, runtime.journal.do(start_draining(worker_id)))
        grace = self._drain_seconds if grace_seconds is None else grace_seconds
        self._within(grace + STOP_SECONDS, drain(runtime, grace_seconds=grace))
        self._doorman.stop()
        self._sweeper.stop()
        self._heartbeat.stop()
        self._close_resources(runtime)
        self._within(STOP_SECONDS, self._stop_on_loop(runtime, worker_id))
        self._dispatcher.stop()
        self._liveness.release()
        self._liveness.forget(worker_id)

    def _within(self, seconds: float, work: Coroutine[Any, Any, Any]) -> None:
        """Do a part of the end; while the database is away it would wait, and the process with it."""
        assert self._run_coroutine is not None
        try:
            self._run_coroutine(work, timeout_seconds=seconds)
        except TimeoutError:
            logger.warning("The database does not answer: what this worker owns is put back by another")

    def _close_resources(self, runtime: Runtime) -> None:
        assert self._run_coroutine is not None
        try:
            self._run_coroutine(runtime.resources.close(), timeout_seconds=STOP_SECONDS)
        except TimeoutError:
            logger.warning("What tools keep open did not close within %g s; it is left behind", STOP_SECONDS)

    def offer_new_definitions(self) -> None:
        """Offer what was defined since this worker started."""
        if self._run_coroutine is not None and self.runtime is not None:
            self._run_coroutine(self._offer_again(self.runtime))
            self._doorman.look()

    async def _offer_again(self, runtime: Runtime) -> None:
        [(now, _)] = await runtime.journal.read(READ_CLOCK)
        for unit in self._registration.offer_again(runtime.worker_id, now):
            await runtime.journal.do(unit)

    async def _start_on_loop(self) -> None:
        loop = asyncio.get_running_loop()
        install_task_factory(loop)
        threads = DaemonThreads(
            "polos-sync",
            limit=self._settings.sync_threads,
            initializer=self._app.set_current,
            gate=self._heartbeat.hold_until_fresh,
        )
        loop.set_default_executor(threads)  # for sync functions of users, which may block for long
        self._bus = Bus(
            self._connections.redis,
            prefix=self._settings.redis_prefix,
            report=self._connections.redis_outage.report,
            codec=self._connections.database.codec,
        )
        self._feed = Feed(
            self._bus,
            keep_seconds=self._settings.stream_keep_seconds,
            max_entries=self._settings.stream_max_entries,
        )
        journal = Journal.open(self._connections.database)
        self._rate_limits = self._make_rate_limits(self._bus, journal)
        serves = Consumed(self._app, self._routes)
        self.runtime = Runtime(
            settings=self._settings,
            journal=journal,
            nudges=self._bus,
            feed=self._feed,
            dispatcher=self._dispatcher_for(serves),
            routes=self._routing,
            serves=serves,
            resolve=resolve,
            worker_id=self._heartbeat.worker_id,
            project=self._settings.project_id,
            deployment=self._settings.deployment_id,
            may_start=self._may_start,
            doorman=self._doorman,
            published=self._sweeper.published,
            look_in=self._sweeper.look_in,
            rate_limits=self._rate_limits,
        )
        journal.writer.find_lost = partial(find_lost, self.runtime)
        self._bus.listen(PAUSES_CHANNEL, self._rate_limits.told)
        self._bus.listen(worker_channel(self.runtime.worker_id), self._nudged)
        self._audit = Audit(self.runtime)
        self._audit.start()
        self._watch = LoopWatch(loop, limit_seconds=self._settings.blocked_loop_seconds)
        self._watch.start()

    def _dispatcher_for(self, serves: Container[object]) -> Dispatcher:
        """Return what rings for runs that this worker executes."""
        if self._deliver_locally is None:
            return self._dispatcher
        return self._deliver_locally(serves=serves, elsewhere=self._dispatcher)

    def _make_rate_limits(self, bus: Bus, journal: Journal) -> RateLimits:
        shared = SharedAllowances(
            self._connections.redis,
            prefix=self._settings.redis_prefix,
            report=self._connections.redis_outage.report,
        )
        stored = JournalAllowances(journal, self._settings.project_id)
        return RateLimits(
            shared, stored, self._settings, SYSTEM_CLOCK, tell=partial(bus.publish, PAUSES_CHANNEL)
        )

    async def _stop_on_loop(self, runtime: Runtime, worker_id: str) -> None:
        if self._watch is not None:
            self._watch.stop()
        if self._audit is not None:
            await self._audit.stop()
        await runtime.journal.do(remove_worker(worker_id))
        await runtime.journal.close()
        if self._bus is not None:
            await self._rate_limits.close()
            await self._bus.close()
        await models.close()

    def _register(self) -> None:
        worker_id, connection = self._heartbeat.worker_id, self._heartbeat.connect()
        self._registration.enter(worker_id, connection, lock_key=self._liveness.lock_key(worker_id))

    # -- what others tell it

    def _nudged(self, run_id: str) -> None:
        if self._audit is not None:
            self._audit.look_at(run_id)

    def _nudge(self, owner: str, run_id: str) -> None:
        """Tell the worker that keeps a run that something happened for it; on any thread."""
        loop, bus = self._loop, self._bus
        if loop is not None and bus is not None and not loop.is_closed():
            loop.call_soon_threadsafe(bus.publish, worker_channel(owner), run_id)

    def _on_declared_dead(self) -> None:
        """Go on as a new worker, on the heartbeat's thread: what the old one owned is executed elsewhere.

        Raises:
            JournalUnavailableError: Not yet; the next beat, of a worker nobody knows, brings us here again.
        """
        if self._loop is None or self.runtime is None:
            return
        logger.warning("Worker %s was declared dead; it goes on under a new id", self.runtime.worker_id)
        self._liveness.release()
        self._heartbeat.worker_id = worker_id = _new_worker_id()
        try:
            self._register()
        except Exception:
            self._heartbeat.worker_id = _new_worker_id()  # the other may be half registered: leave it alone
            raise
        self._loop.call_soon_threadsafe(lambda: start_apart(self._be_reborn(worker_id)))

    async def _may_start(self) -> None:
        """Return once a side effect may be started, under the id that this worker has from now on."""
        await self._heartbeat.may_start()
        while self.runtime is not None and self.runtime.worker_id != self._heartbeat.worker_id:
            await asyncio.sleep(LOOK_AGAIN_SECONDS)  # `_be_reborn` is on its way
            await self._heartbeat.may_start()

    async def _be_reborn(self, worker_id: str) -> None:
        """Take the new id, and drop what belongs to the old one."""
        runtime = self.runtime
        if runtime is None or runtime.draining or self._bus is None:
            return
        self._bus.forget(worker_channel(runtime.worker_id), self._nudged)
        runtime.worker_id = worker_id
        self._bus.listen(worker_channel(worker_id), self._nudged)
        for call in list(runtime.turns.values()):
            if call is not None:
                call.cancel()
        await asyncio.gather(*(drop(execution) for execution in list(runtime.executions.values())))


def _new_worker_id() -> str:
    return uuid.uuid4().hex
