"""A thread of every worker process that puts back what dead workers left and rings what nobody claimed."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence

from polos.dispatch import Dispatcher, Doorbell
from polos.errors import JournalUnavailableError
from polos.journal.database import Connection, Database
from polos.journal.liveness import Liveness
from polos.journal.recovery import (
    MAX_ROWS,
    READ_ANY_DUE,
    READ_LOST_OWNERS,
    drop_turns_of_ended_runs,
    due_runs,
    due_turns,
    put_back_runs,
    put_back_turns,
    ring_children,
    ring_soon,
)
from polos.journal.statements import Rows, Statement, Unit
from polos.journal.states import RunStatus
from polos.journal.suspends import READ_EXPIRED, close_waits_of_ended_runs, expire
from polos.journal.workers import READ_CLOCK, READ_WORKERS, SeenWorker, remove_worker, seen_from
from polos.routes import Routes, turn_label
from polos.settings import Settings
from polos.worker.verdicts import SUSPICION_SECONDS, Coroner

logger = logging.getLogger("polos.sweeper")

REVIVE_EVERY_SWEEPS = 5  # looks after the embedded server, if there is one


class Sweeper:
    """Sweeps about once a second. Several sweepers on one journal share the work row by row."""

    def __init__(
        self,
        database: Database,
        liveness: Liveness,
        dispatcher: Dispatcher,
        routes: Routes,
        settings: Settings,
        *,
        revive: Callable[[], None],
    ) -> None:
        self._database = database
        self._liveness = liveness
        self._dispatcher = dispatcher
        self._routes = routes
        self._settings = settings
        self._revive = revive
        self._coroner = Coroner(silence_limit_seconds=settings.silence_limit_seconds)
        self._connection: Connection | None = None
        self._sweeps = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="polos-sweeper", daemon=True)

    def start(self) -> None:
        """Begin to sweep."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the sweep under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)
        self._disconnect()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.sweep()
            except JournalUnavailableError as error:
                logger.warning("The sweeper cannot reach the database: %s", error)
                self._coroner.lost_contact()
                self._disconnect()
            except Exception:
                logger.exception("A sweep failed; the next one tries again")
                self._disconnect()
            self._stop.wait(self._pause())

    def _pause(self) -> float:
        if self._coroner.suspects:
            return min(self._settings.sweep_seconds, SUSPICION_SECONDS / 5)
        return self._settings.sweep_seconds * random.uniform(0.8, 1.2)

    def sweep(self) -> None:
        """Do every duty once."""
        self._sweeps += 1
        if self._sweeps % REVIVE_EVERY_SWEEPS == 0:
            self._revive()
        for worker in self._dead_workers():
            self.bury(worker)
        for (owner,) in self._read(READ_LOST_OWNERS):
            self._put_back(owner)
        self._ring_what_is_due()

    def _dead_workers(self) -> Sequence[SeenWorker]:
        workers = [seen_from(row) for row in self._read(READ_WORKERS)]
        [(now, _)] = self._read(READ_CLOCK)
        connection = self._connect()
        free = self._liveness.free(workers, connection)
        up = self._liveness.server_up_seconds(connection)
        return self._coroner.dead(workers, free, now=now, server_up_seconds=up)

    def bury(self, worker: SeenWorker) -> None:
        """Put back what a dead worker owned and forget it."""
        logger.warning(
            "Worker %s (%s) is dead: silent for %.1f s", worker.hostname, worker.id, worker.silent_seconds
        )
        self._do(ring_children(worker.id))  # while the runs that started them are known to be its own
        self._put_back(worker.id)
        for route in worker.routes.split(","):
            self._do(ring_soon(route))
        self._do(remove_worker(worker.id))
        self._liveness.forget(worker.id)

    def _put_back(self, owner: str) -> None:
        runs = self._all(put_back_runs(owner))
        turns = self._all(put_back_turns(owner, crashed=True))
        if runs or turns:
            logger.warning("Put back %d runs and %d turns of worker %s", runs, turns, owner)

    def _all(self, unit: Unit) -> int:
        """Repeat a bounded unit until it finds nothing more; return how many rows it moved."""
        moved = 0
        while rows := self._do(unit):
            moved += len(rows)
            if len(rows) < MAX_ROWS:
                break
        return moved

    def _ring_what_is_due(self) -> None:
        [(runs_due, turns_due)] = self._read(READ_ANY_DUE)
        pauses = {
            "ring_again": self._settings.ring_again_seconds,
            "ring_again_max": self._settings.ring_again_max_seconds,
        }
        if runs_due:
            for run_id, name, route, deployment, parent in self._do(due_runs(**pauses)):
                bell = Doorbell(run_id, name, route, deployment, begun=parent is not None)
                self._dispatcher.ring(bell)
        if turns_due:
            self._expire_waits()
            self._do(drop_turns_of_ended_runs())
            for run_id, step, name, route, deployment in self._do(due_turns(**pauses)):
                route = self._routes.of_turn(name, route)
                bell = Doorbell(run_id, turn_label(name), route, deployment, step=step, begun=True)
                self._dispatcher.ring(bell)

    def _expire_waits(self) -> None:
        """End waits whose time is up; a run that was parked is rung, another looks within a second."""
        self._do(close_waits_of_ended_runs())
        for run_id, name, root_id, asked_at, expired_at in self._read(READ_EXPIRED):
            error = f"Suspend {name.removeprefix('$')!r} timed out after {expired_at - asked_at:.0f} seconds"
            unit = expire(
                run_id, name, root_id=root_id, error=error, ring_again=self._settings.ring_again_seconds
            )
            for status, _, _, run_name, route, deployment in self._do(unit):
                if status == RunStatus.QUEUED:
                    self._dispatcher.ring(Doorbell(run_id, run_name, route, deployment, begun=True))

    # -- the database

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _read(self, statement: Statement) -> Rows:
        return self._connect().read(statement, {})

    def _do(self, unit: Unit) -> Rows:
        return self._connect().commit([unit])[0]
