"""A thread of every worker process that puts back what dead workers left and rings what nobody claimed."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Sequence

from polos.dispatch import Dispatcher
from polos.errors import JournalUnavailableError
from polos.journal.database import Connection, Database
from polos.journal.liveness import Liveness
from polos.journal.recovery import (
    READ_LOST_OWNERS,
    put_back_runs,
    put_back_turns,
    ring_children,
    ring_soon,
)
from polos.journal.workers import READ_CLOCK, READ_WORKERS, SeenWorker, condemn, seen_from
from polos.routes import Routes
from polos.settings import Settings
from polos.worker.duties.desk import Admit, Desk, Duty, Nudge, no_admit, no_nudge
from polos.worker.duties.detector import FindStuckRuns
from polos.worker.duties.retention import RemoveOldRuns
from polos.worker.duties.ringing import RingWhatIsDue, WakeOverdueRuns
from polos.worker.duties.schedules import FireSchedules
from polos.worker.duties.sessions import RemoveOldSessions
from polos.worker.duties.triggers import FireTriggers
from polos.worker.duties.waits import EndWaits
from polos.worker.verdicts import SUSPICION_SECONDS, Coroner

logger = logging.getLogger("polos.sweeper")

REVIVE_EVERY_SWEEPS = 5  # looks after the embedded server, if there is one
SHORTEST_PAUSE_SECONDS = 0.02


def _always() -> bool:
    return True


def all_duties(settings: Settings) -> list[Duty]:
    """Return what every sweeper looks after."""
    return [
        WakeOverdueRuns(),
        RingWhatIsDue(),
        EndWaits(),
        FireTriggers(),
        FireSchedules(),
        FindStuckRuns(),
        RemoveOldRuns(),
        RemoveOldSessions(),
    ]


class Sweeper:
    """Sweeps about once a second. Several sweepers on one journal share the work row by row.

    `is_heard_of`: Whether the beats of its own worker arrive. A database that is read and cannot be written
    to shows everybody silent.
    """

    def __init__(
        self,
        database: Database,
        liveness: Liveness,
        dispatcher: Dispatcher,
        routes: Routes,
        settings: Settings,
        *,
        revive: Callable[[], None],
        nudge: Nudge = no_nudge,
        admit: Admit = no_admit,
        is_heard_of: Callable[[], bool] = _always,
        duties: Sequence[Duty] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._liveness = liveness
        self._desk = Desk(self._connect, dispatcher, routes, settings, nudge, admit)
        self._duties = all_duties(settings) if duties is None else list(duties)
        self._monotonic = monotonic
        self._next_look: dict[Duty, float] = {}
        self._wanted_after = settings.sweep_seconds
        self._settings = settings
        self._revive = revive
        self._is_heard_of = is_heard_of
        self._coroner = Coroner(silence_limit_seconds=settings.silence_limit_seconds)
        self._connection: Connection | None = None
        self._sweeps = 0
        self._sleeps_until = math.inf
        self._stop = threading.Event()
        self._poked = threading.Event()
        self._thread = threading.Thread(target=self._run, name="polos-sweeper", daemon=True)

    def start(self) -> None:
        """Begin to sweep."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the sweep under way."""
        self._stop.set()
        self._poked.set()
        if self._thread.is_alive():
            self._thread.join(5)
        self._disconnect()

    def poke(self) -> None:
        """Sweep now: there is something to do. Any thread may call it."""
        self._poked.set()

    def look_in(self, seconds: float) -> None:
        """Sweep in so many seconds at the latest. Any thread may call it."""
        if time.monotonic() + seconds < self._sleeps_until:
            self.poke()  # it sees then what is due, and when the next is

    def published(self, project: str, topic: str) -> None:
        """Sweep now if events of this topic start something. Any thread may call it."""
        if (project, topic) in self._desk.triggering_topics:
            self.poke()

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
            self._stop.wait(SHORTEST_PAUSE_SECONDS)  # who is poked all the time has other things to do too
            pause = self._pause()
            self._sleeps_until = time.monotonic() + pause
            if self._poked.wait(pause):
                self.look_everywhere()
            self._sleeps_until = math.inf
            self._poked.clear()

    def _pause(self) -> float:
        if self._coroner.suspects:
            return min(self._settings.sweep_seconds, SUSPICION_SECONDS / 5)
        return min(self._settings.sweep_seconds * random.uniform(0.8, 1.2), self._wanted_after)

    def look_everywhere(self) -> None:
        """Have the next sweep look everywhere: what is due now was not when it was looked for."""
        self._next_look = {duty: at for duty, at in self._next_look.items() if duty.every_seconds}

    @property
    def rests_seconds(self) -> float:
        """In how many seconds the next sweep is wanted."""
        return min(self._settings.sweep_seconds, self._wanted_after)

    def sweep(self) -> None:
        """Do every duty once."""
        self._sweeps += 1
        if self._sweeps % REVIVE_EVERY_SWEEPS == 0:
            self._revive()
        for worker in self._dead_workers():
            self.bury(worker)
        for (owner,) in self._desk.read(READ_LOST_OWNERS):
            self._put_back(owner)
        self._do_duties()

    def _dead_workers(self) -> Sequence[SeenWorker]:
        if not self._is_heard_of():
            self._coroner.lost_contact()
            return []
        workers = [seen_from(row) for row in self._desk.read(READ_WORKERS)]
        [(now, _)] = self._desk.read(READ_CLOCK)
        connection = self._connect()
        free = self._liveness.free(workers, connection)
        up = self._liveness.server_up_seconds(connection)
        return self._coroner.dead(workers, free, now=now, server_up_seconds=up)

    def bury(self, worker: SeenWorker) -> None:
        """Forget a dead worker, and put back what it owned, unless it was heard of since it was judged."""
        if not self._desk.do(condemn(worker.id, beat_at=worker.beat_at)):
            return
        logger.warning(
            "Worker %s (%s) is dead: silent for %.1f s", worker.hostname, worker.id, worker.silent_seconds
        )
        self._desk.do(ring_children(worker.id))  # while the runs that started them are known to be its own
        self._put_back(worker.id)
        for route in worker.routes.split(","):
            self._desk.do(ring_soon(route))
        self._liveness.forget(worker.id)

    def _put_back(self, owner: str) -> None:
        runs = self._desk.do_all(put_back_runs(owner))
        turns = self._desk.do_all(put_back_turns(owner, crashed=True))
        if runs or turns:
            logger.warning("Put back %d runs and %d turns of worker %s", runs, turns, owner)

    def _do_duties(self) -> None:
        """Do every duty whose time has come; how soon the next sweep is wanted is remembered."""
        self._wanted_after = self._settings.sweep_seconds
        now = self._monotonic()
        for duty in self._duties:
            if (pause := self._next_look.get(duty, -math.inf) - now) > 0:
                self._wanted_after = min(self._wanted_after, max(pause, SHORTEST_PAUSE_SECONDS))
                continue
            self._next_look[duty] = now + duty.every_seconds
            again = self._done(duty)
            if again is not None:
                self._next_look[duty] = now + min(again, duty.every_seconds)
                self._wanted_after = min(self._wanted_after, max(again, SHORTEST_PAUSE_SECONDS))

    def _done(self, duty: Duty) -> float | None:
        """Do one duty; a mistake in it keeps no other from being done."""
        try:
            return duty.do(self._desk)
        except JournalUnavailableError:
            raise
        except Exception:
            logger.exception("A duty of the sweeper failed: %s", type(duty).__name__)
            self._disconnect()
            return None

    # -- the database

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
