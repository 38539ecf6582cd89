"""A thread of every worker process that admits pending runs: when it is told of a reason, and each second."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence

from polos.admission import Admitter, Lane, Outcome
from polos.dispatch import Dispatcher
from polos.errors import JournalUnavailableError
from polos.journal.database import Connection, Database
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.settings import Settings

logger = logging.getLogger("polos.doorman")

LOOK_SECONDS = 1.0  # between looks without a reason
MAX_DOORBELLS_PER_ROUTE = 1000  # however fast they are answered
WINDOW_SECONDS = 0.25  # of claims at the present rate may be outstanding
MANY_LANES = 50  # to look at one by one


class Doorman:
    """Admits runs of this worker's deployment. `claimed` and `look_at` may be called from any thread."""

    def __init__(self, database: Database, dispatcher: Dispatcher, settings: Settings) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._settings = settings
        self._connection: Connection | None = None
        self._admitter = Admitter(
            self,
            project=settings.project_id,
            deployment=settings.deployment_id,
            window=settings.doorbells_per_route,
            ring_again=settings.ring_again_seconds,
            silence_limit_seconds=settings.silence_limit_seconds,
        )
        self._lanes: set[Lane] = set()
        self._routes: dict[str, _Route] = {}
        self._paced: frozenset[str] = frozenset()
        self._limited: frozenset[str] = frozenset()
        self._is_wanted = threading.Event()
        self._looks_everywhere = True
        self._next_look = 0.0
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="polos-doorman", daemon=True)

    def start(self) -> None:
        """Begin to admit."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the pass under way."""
        self._stopped = True
        self._is_wanted.set()
        if self._thread.is_alive():
            self._thread.join(5)
        self._disconnect()

    # -- what it is told

    def claimed(self, route: str | None, queue: str | None) -> None:
        """Make room for what is deferred on a route, once enough doorbells of it were answered.

        In a queue with a rate, the next may begin once a doorbell is answered.
        """
        if queue in self._paced or (route is not None and self._routes.setdefault(route, _Route()).claimed()):
            self.look()

    def is_limited(self, queue: str) -> bool:
        """Whether a queue had limits when this last looked."""
        return queue in self._limited

    def look_at(self, queue: str, concurrency_key: str | None) -> None:
        """Look at one lane: a slot of it may be free, or newly wanted."""
        self._lanes.add((queue, concurrency_key or ""))
        self._is_wanted.set()

    def look(self) -> None:
        """Look everywhere, soon."""
        self._looks_everywhere = True
        self._is_wanted.set()

    @property
    def rests_seconds(self) -> float:
        """In how many seconds it looks without being told."""
        return max(self._next_look - time.monotonic(), 0.0)

    # -- its thread

    def _run(self) -> None:
        while not self._stopped:
            try:
                self.look_where_wanted()
            except JournalUnavailableError as error:
                logger.warning("No run can be admitted, the database is away: %s", error)
                self._give_up_for_now()
            except Exception:
                logger.exception("Runs could not be admitted; the next look tries again")
                self._give_up_for_now()
            self._is_wanted.wait(self.rests_seconds)
            self._is_wanted.clear()

    def _give_up_for_now(self) -> None:
        self._disconnect()
        self._next_look = time.monotonic() + LOOK_SECONDS

    def look_where_wanted(self) -> None:
        """Admit what may begin, where this was told to look; everywhere now and then."""
        lanes, self._lanes = self._lanes, set()
        everywhere, self._looks_everywhere = self._looks_everywhere, False
        if everywhere or time.monotonic() >= self._next_look or len(lanes) > MANY_LANES:
            self._look_everywhere()
        elif lanes:
            outcome = self._admitter.admit(lanes)
            self._paced |= outcome.paced
            self._limited |= outcome.limited
            self._ring(outcome)

    def _look_everywhere(self) -> None:
        base = self._settings.doorbells_per_route
        pace = max((route.claims_a_second() for route in self._routes.values()), default=0.0)
        self._admitter.window = max(
            base, min(int(pace * self._admitter.workers * WINDOW_SECONDS), MAX_DOORBELLS_PER_ROUTE)
        )
        claims = {name: route.claims for name, route in self._routes.items()}
        outcome = self._admitter.admit()
        self._paced = frozenset(outcome.paced)
        self._limited = frozenset(outcome.limited)
        self._ring(outcome)
        self._count_down(outcome, claims)
        self._next_look = time.monotonic() + LOOK_SECONDS * random.uniform(0.8, 1.2)
        if outcome.again_seconds is not None:
            self._next_look = min(self._next_look, time.monotonic() + outcome.again_seconds)

    def _count_down(self, outcome: Outcome, claims: Mapping[str, int]) -> None:
        """Look again when about half of what is outstanding was claimed since the look began."""
        for name, rung in outcome.rung.items():
            surplus = max(rung - self._admitter.window // 2, 0)
            route = self._routes.setdefault(name, _Route())
            route.look_after(claims.get(name, 0) + surplus // self._admitter.workers)
            if surplus and route.is_due:
                self.look()

    def _ring(self, outcome: Outcome) -> None:
        self._dispatcher.ring(*outcome.bells)

    # -- the database, as `Admitter` uses it

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""
        return self._connect().read(statement, params)

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Run units as one transaction."""
        return self._connect().commit(units)

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Route:
    """Claims of one route, as this process sees them."""

    def __init__(self) -> None:
        self.claims = 0
        self._look_at = 0  # so many claims
        self._counted = 0
        self._since = time.monotonic()
        self._rate = 0.0

    def claimed(self) -> bool:
        """Count a claim; answer whether it is time to look."""
        self.claims += 1
        return self.is_due

    @property
    def is_due(self) -> bool:
        """Whether there was a claim too many since the last look."""
        return self.claims > self._look_at

    def look_after(self, claims: int) -> None:
        """Say at how many claims in all the next look is worth while."""
        self._look_at = claims

    def claims_a_second(self) -> float:
        """Return the rate of late."""
        now = time.monotonic()
        if (seconds := now - self._since) >= LOOK_SECONDS / 4:
            self._rate = (self.claims - self._counted) / seconds
            self._counted, self._since = self.claims, now
        return self._rate
