"""What a client stands on: a journal connection, a sender of doorbells, notices of ends, an embedded worker.

Everything but the notices is blocking and called in threads, so that a client works from any event loop.
"""

from __future__ import annotations

import asyncio
import logging
import pkgutil
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from polos import event_data
from polos.clock import SYSTEM_CLOCK, Clock
from polos.connections import Connections, configured_app, installed_app
from polos.dispatch import Doorbell, Sender, quietly
from polos.errors import JournalUnavailableError
from polos.feeds import Feeds
from polos.forking import ForkPlan
from polos.forks import Forked
from polos.journal import schema
from polos.journal.cancelling import Cancelled, cancelling, carry_out, target_of
from polos.journal.database import Connection, Database
from polos.journal.forks import create_fork
from polos.journal.key_check import check_key
from polos.journal.postgres import TransientConflictError
from polos.journal.queue_lists import list_queues
from polos.journal.runs import READ_RUN, READ_RUN_BY_KEY, NewRun, run_record
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.journal.states import RunStatus
from polos.journal.steps import READ_STEP_DETAILS, step_details
from polos.journal.usage import UsageQuery, read_usage
from polos.journal.waits import Woken
from polos.offers import Offers
from polos.queues import QueueInfo
from polos.registry import get_workflow
from polos.retrying import not_retried, retrying
from polos.routes import Routes
from polos.settings import Settings
from polos.starting import Starter
from polos.streaming.bus import Bus
from polos.timetable import Place, Timetable, unschedulable
from polos.triggers import fire_triggers
from polos.usage import UsageReport, UsageRequest, usage_report
from polos.waits import Answered, Wait, answer_wait, find_wait, hand_over_all

if TYPE_CHECKING:
    from celery import Celery

T = TypeVar("T")
logger = logging.getLogger("polos.client")

RUN_CHANNEL = "run:{}"
WORKER_CHANNEL = "worker:{}"
PUBLISHERS_TRANSACTIONS = 2  # of runs that events trigger; who publishes many leaves the rest to workers
EMBEDDED_WORKER = (
    "polos.worker.embedded:EmbeddedWorker"  # named, as Celery names pools: the worker is above us
)


class EmbeddableWorker(Protocol):
    """A worker in a thread of this process."""

    def start(self) -> None:
        """Serve this process's definitions; again after new ones were defined."""

    def stop(self) -> None:
        """Hand everything back and end."""


class ClientBackend(Forked):
    """The connections of one process for one client; made anew after a fork."""

    def __init__(self, settings: Settings, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        self._left: list[object] = []
        self._begin()
        self.watch_forks()

    # -- life

    def _begin(self) -> None:
        self._lock = threading.RLock()  # one journal connection, many threads
        self._app: Celery | None = None
        self._connections: Connections | None = None
        self._database: Database | None = None
        self._journal: Connection | None = None
        self._worker: EmbeddableWorker | None = None
        self._feeds = Feeds(
            _Journal(self),
            self._bus,
            self._hand_over,
            max_value_bytes=self._settings.max_value_bytes,
            clock=self._clock,
        )
        self._starter = Starter(_Journal(self), self._settings)
        self._buses: WeakKeyDictionary[asyncio.AbstractEventLoop, Bus] = WeakKeyDictionary()

    def before_fork(self) -> None:
        """Let nothing be under way; an SQLite connection must not even be open when its process forks."""
        self._lock.acquire()
        if self._database is not None and self._database.is_sqlite:
            self._disconnect()  # SQLite would take the parent's locks on the file for the child's own

    def after_fork(self) -> None:
        """Go on, in the parent."""
        self._lock.release()

    def forget(self) -> None:
        """Begin anew, in the child."""
        # Kept, for what is freed shuts sockets that the parent still uses.
        self._left += [self._app, self._connections, self._journal, self._worker, self._feeds, self._buses]
        self._begin()

    def connect(self) -> None:
        """Reach the journal, and create its schema in an empty database.

        Raises:
            ConfigurationError: Broker or Redis are there, but not as they are configured.
            JournalUnavailableError: The database does not answer; names URL and variable.
        """
        with self._lock:
            if self._connections is None:
                self._app, self._connections = self._configured()
                self._database = self._connections.database
            if self._journal is None:
                assert self._database is not None
                schema.prepare(self._database)
                check_key(self._database)
                self._journal = self._database.connect()

    def _configured(self) -> tuple[Celery, Connections]:
        if (own := installed_app()) is not None:
            return own, own.polos[1]
        app, connections = configured_app(self._settings, {"task_ignore_result": True})
        connections.refuse_wrong(app)
        return app, connections

    @property
    def rings_through_own_app(self) -> bool:
        """Whether the program has a Celery app of its own, hence workers, that polos is installed in."""
        return self._app is not None and self._app is installed_app()

    @property
    def is_connected(self) -> bool:
        """Whether `connect` has nothing to do."""
        return self._database is not None and self._journal is not None

    async def close(self) -> None:
        """Drain an embedded worker and give all connections up."""
        await self.leave_loop()
        await asyncio.to_thread(self._close)

    async def leave_loop(self) -> None:
        """Give up what belongs to the running event loop."""
        bus = self._buses.pop(asyncio.get_running_loop(), None)
        if bus is not None:
            await bus.close()

    def _close(self) -> None:
        with self._lock:
            if self._worker is not None:
                self._worker.stop()
            if self._journal is not None:
                self._journal.close()
            if self._app is not None and self._connections is not None and not self.rings_through_own_app:
                self._app.close()
                self._connections.close()
            self._worker = self._journal = self._app = self._connections = self._database = None

    def start_worker(self) -> None:
        """Serve this process's definitions from a thread of it, including those defined since."""
        with self._lock:
            if self._worker is None:
                self._worker = pkgutil.resolve_name(EMBEDDED_WORKER)(self._settings, self._connections)
            self._worker.start()

    # -- runs

    def create_runs(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Create runs in one transaction and ring; return them as they stand, new or found by their key."""
        routes = Routes(self._app)
        routed = [
            {**request, "route": routes.of_run(request["name"], request["route"])} for request in requests
        ]
        with self._lock:
            runs, bells = self._starter.start(routed)
        self._ring(bells)
        return runs

    def read_run(self, run_id: str) -> dict[str, Any] | None:
        """Return a run by column name."""
        rows = self._read(READ_RUN, {"run": run_id})
        return run_record(rows[0]) if rows else None

    def list_queues(self, project: str) -> list[QueueInfo]:
        """Return the queues of a project that have limits, or runs that wait to be admitted."""
        return self._again(lambda journal: list_queues(journal, project))

    def usage(self, project: str, request: UsageRequest) -> UsageReport:
        """Return what model calls of a project used and cost."""
        times = {"since": request.since, "until": request.until}
        moments = {name: moment.timestamp() for name, moment in times.items() if moment is not None}
        wanted = UsageQuery(
            project,
            by=request.by,
            agent=request.agent,
            model=request.model,
            session=request.session,
            run_id=request.run_id,
            **moments,
        )
        found = self._again(lambda journal: read_usage(journal, wanted))
        return usage_report(found, grouped=request.by is not None)

    @property
    def journal(self) -> Journal:
        """The journal, for what is read and written beside this."""
        return _Journal(self)

    # -- schedules and triggers

    def timetable(self, project: str) -> Timetable:
        """Return the schedules of a project."""
        return Timetable(
            _Journal(self),
            project,
            silence_limit_seconds=self._settings.silence_limit_seconds,
            place_here=lambda workflow: self._place_here(project, workflow),
        )

    def _place_here(self, project: str, workflow: str) -> Place | None:
        definition = get_workflow(workflow)
        if definition is None:
            return None
        if not definition.is_schedulable:
            raise unschedulable(workflow)
        kind = definition.workflow_type
        found = self.offers.find_deployment(project, workflow, kind, None)
        return Place(found.deployment, kind, Routes(self._app).of_run(workflow, definition.route))

    def fire_triggers(self, project: str, topic: str) -> None:
        """Start what events of a topic trigger. What cannot be started now is left to the sweepers."""
        try:
            fired = fire_triggers(
                _Journal(self), self._settings, (project, topic), max_transactions=PUBLISHERS_TRANSACTIONS
            )
            with self._lock:
                bells = self._starter.admit(fired.pending)
        except JournalUnavailableError as error:
            logger.warning("What the events of %r trigger is started later: %s", topic, error)
            return
        self._ring([*fired.bells, *bells])

    def cancel(self, run: dict[str, Any]) -> list[Cancelled]:
        """Cancel a run and its descendants, level by level, root first; return what was still going."""
        work = cancelling(
            [target_of(run)],
            by="user",
            ring_again=self._settings.ring_again_seconds,
            resumed=run["status"] == RunStatus.CANCELLED,
        )
        cancelled = carry_out(work, _Journal(self))
        for one in cancelled:
            self._wake_parent(one.parent_id, one.parent_status)
        return cancelled

    def retry(self, run: dict[str, Any]) -> None:
        """Let a failed or cancelled root go on, and ring.

        Raises:
            ValueError: It is neither.
        """
        [rows] = self._commit([retrying(run, ring_again=self._settings.ring_again_seconds)])
        if not rows:
            raise not_retried(self.read_run(run["id"]) or run)
        if rows[0][1] is not None:
            self._ring([_doorbell(run, begun=True)])

    def read_steps(self, run_id: str) -> list[dict[str, Any]]:
        """Return the steps of a run by column name."""
        return [step_details(row) for row in self._read(READ_STEP_DETAILS, {"run": run_id})]

    def create_fork(self, row: dict[str, Any], plan: ForkPlan) -> dict[str, Any]:
        """Create a run with the part of another one's journal that `plan` says, and ring; return it."""
        new = NewRun(**row)
        unit = create_fork(
            new, plan.names, plan.replacements, seq=plan.seq, ring_again=self._settings.ring_again_seconds
        )
        self._commit([unit])
        by_key = {"project": new.project, "idempotency_key": new.idempotency_key}
        run = self.read_run(new.id) or run_record(self._read(READ_RUN_BY_KEY, by_key)[0])
        if run["status"] == RunStatus.QUEUED and run["ring_at"] is not None:
            self._ring([_doorbell(run, begun=True)])
        return run

    def _wake_parent(self, parent_id: str | None, status: str | None) -> None:
        if parent_id is None:
            return
        if status == RunStatus.QUEUED and (parent := self.read_run(parent_id)) is not None:
            self._ring([_doorbell(parent, begun=True)])
        # A parent that runs is not nudged from here: its worker's audit sees the change within a second.

    @property
    def offers(self) -> Offers:
        """Who serves what."""
        return Offers(_Journal(self), self._settings)

    @property
    def feeds(self) -> Feeds:
        """What publishes events and follows them."""
        return self._feeds

    # -- notices

    @asynccontextmanager
    async def end_of_run(self, run_id: str, ended: asyncio.Event) -> AsyncIterator[None]:
        """Set `ended` when somebody says that the run has ended, and once it would be heard."""
        heard = self._bus().listening(
            RUN_CHANNEL.format(run_id), lambda _: ended.set(), on_subscribed=ended.set
        )
        async with heard:
            yield

    def answer_wait(
        self,
        run: dict[str, Any],
        step_key: str,
        data: Any,
        *,
        run_id: str | None,
        answered_by: str | None = None,
    ) -> Answered | None:
        """Answer what waits under a key in the tree of `run`; see `polos.waits.answer_wait`."""
        answered = answer_wait(
            _Journal(self),
            run,
            step_key,
            data,
            max_value_bytes=self._settings.max_value_bytes,
            ring_again=self._settings.ring_again_seconds,
            run_id=run_id,
            answered_by=answered_by,
            at=self._clock.time(),
        )
        if answered is not None and answered.woken is not None:
            self._ring_woken([answered.woken])
        return answered

    async def _hand_over(self, project: str, topic: str) -> None:
        """Give runs the events of a topic that they waited for."""
        journal, ring_again = _Journal(self), self._settings.ring_again_seconds
        woken = await asyncio.to_thread(hand_over_all, journal, project, topic, ring_again=ring_again)
        await asyncio.to_thread(self._ring_woken, woken)
        for run_id, run in woken:
            self._nudge(run_id, run)

    def _ring_woken(self, woken: Sequence[tuple[str, Woken]]) -> None:
        self._ring(
            [
                Doorbell(run_id, run.name, run.route, run.deployment, begun=True)
                for run_id, run in woken
                if run.wants_bell
            ]
        )

    def _nudge(self, run_id: str, run: Woken) -> None:
        if run.owner is not None:
            self._bus().publish(WORKER_CHANNEL.format(run.owner), run_id)

    def find_wait(self, run: dict[str, Any], step_key: str) -> Wait | None:
        """Return what waits, or waited, under a key in the tree of `run`."""
        return find_wait(_Journal(self), run, step_key)

    def tell_answered(self, answered: Answered) -> None:
        """Tell readers of the tree, and the worker that keeps the run."""
        self._feeds.tell(answered.root_id, answered.number, answered.event)
        if answered.woken is not None:
            self._nudge(*answered.woken)

    def tell_cancelled(self, run: Cancelled) -> None:
        """Tell the worker that executes a cancelled run, and whoever waits for it."""
        bus = self._bus()
        where = event_data.metadata(run.run_id, run.name)
        ended = event_data.run_ended(
            run.kind,
            RunStatus.CANCELLED.value,
            where,
            error=run.error,
            cancelled_by=run.cancelled_by,
        )
        self._feeds.tell(run.root_id, run.number, ended)
        bus.publish(RUN_CHANNEL.format(run.run_id), "ended")
        if run.owner is not None:
            bus.publish(WORKER_CHANNEL.format(run.owner), run.run_id)

    def _bus(self) -> Bus:
        loop = asyncio.get_running_loop()
        if (bus := self._buses.get(loop)) is None:
            for ended in [known for known in self._buses if known.is_closed()]:
                del self._buses[ended]  # a bus refers to its loop, which would keep both for ever
            bus = self._buses[loop] = self._new_bus()
        return bus

    def _new_bus(self) -> Bus:
        assert self._connections is not None, "connect() comes first"
        return Bus(
            self._connections.redis,
            prefix=self._settings.redis_prefix,
            report=self._connections.redis_outage.report,
            codec=self._connections.database.codec,
        )

    # -- the journal and the broker

    def _ring(self, doorbells: Sequence[Doorbell]) -> None:
        if doorbells:
            self._send(doorbells)

    def _send(self, doorbells: Sequence[Doorbell]) -> None:
        assert self._connections is not None, "connect() comes first"
        self._connections.broker_outage.report(quietly(lambda: Sender(self._app).send(doorbells)))

    def _read(self, statement: Statement, params: Params) -> Rows:
        return self._again(lambda journal: journal.read(statement, params))

    def _commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Commit units that are harmless to repeat."""
        while True:
            try:
                return self._again(lambda journal: journal.commit(units))
            except TransientConflictError:
                continue  # the database chose us to give way to another; nothing happened

    def _again(self, work: Callable[[Connection], T]) -> T:
        """Do `work`; once more on a new connection when the old one was lost.

        Raises:
            JournalUnavailableError: The database does not answer.
        """
        with self._lock:
            try:
                return work(self._connected())
            except JournalUnavailableError:
                self._disconnect()
                return work(self._connected())

    def _connected(self) -> Connection:
        if self._journal is None:
            assert self._database is not None, "connect() comes first"
            self._journal = self._database.connect()
        return self._journal

    def _disconnect(self) -> None:
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()


class Journal(Protocol):
    """Reads and commits; blocking."""

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Run units as one transaction."""


class _Journal:
    """The journal, for what reads and writes it beside the backend."""

    def __init__(self, backend: ClientBackend) -> None:
        self._backend = backend

    def read(self, statement: Statement, params: Params) -> Rows:
        return self._backend._read(statement, params)

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        return self._backend._commit(units)


def _doorbell(run: dict[str, Any], *, begun: bool = False) -> Doorbell:
    return Doorbell(run["id"], run["name"], run["route"], run["deployment"], begun=begun)
