"""What a client does to start runs: their queues, the runs themselves, and who of them is rung at once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from polos.admission import Admitter, Journal
from polos.dispatch import Doorbell
from polos.journal.creating import create_run
from polos.journal.postgres import TransientConflictError
from polos.journal.queues import Limits, ensure_queue
from polos.journal.runs import READ_RUN, READ_RUN_BY_KEY, NewRun, is_pending, run_record
from polos.journal.statements import Rows, Unit
from polos.journal.states import QueueSlot, RunStatus
from polos.settings import Settings

LOOK_AGAIN_SECONDS = 0.05  # after a look at what is deferred: workers look whenever they have room
UNCOUNTED_RUNS = 10  # started in a row
Place = tuple[str, str]  # project and deployment
Request = Mapping[str, Any]  # columns of `NewRun`, with "queue_limit" and "delay_seconds" beside them


class Starter:
    """Starts runs on one journal. For one thread at a time."""

    def __init__(self, journal: Journal, settings: Settings) -> None:
        self._journal = journal
        self._settings = settings
        self._known_queues: set[tuple[str, str, str]] = set()
        self._admitters: dict[Place, Admitter] = {}
        self._looked: dict[Place, float] = {}
        self._uncounted = 0
        self._counted_at = 0.0

    def start(self, requests: Sequence[Request]) -> tuple[list[dict[str, Any]], list[Doorbell]]:
        """Create runs in one transaction; return them, new or found by their key, and whom to ring."""
        new = [_split(request) for request in requests]
        queues = {_queue_of(run): limit for run, limit, _ in new if limit}
        missing = {queue: limit for queue, limit in queues.items() if queue not in self._known_queues}
        units = [ensure_queue(*queue, Limits(limit)) for queue, limit in missing.items()]
        units += [self._creation(run, delay, place) for place, (run, _, delay) in enumerate(new)]
        answers = self._committed(units)[len(missing) :]
        self._known_queues |= missing.keys()
        runs = [self._created(run, rows) for (run, _, _), rows in zip(new, answers, strict=True)]
        queued = [run for run in runs if run["status"] == RunStatus.QUEUED]
        bells = [_doorbell(run) for run in queued if not is_pending(run)]
        return runs, [*bells, *self._admitted([run for run in queued if is_pending(run)])]

    def _committed(self, units: Sequence[Unit]) -> list[Rows]:
        while True:
            try:
                return self._journal.commit(units)
            except TransientConflictError:
                continue  # nobody's fault: a queue that gets limits takes many runs into account

    def _creation(self, run: NewRun, delay_seconds: float, place: int) -> Unit:
        return create_run(
            run,
            ring_again=self._settings.ring_again_seconds,
            window=self._settings.doorbells_per_route if self._counts() else 0,
            delay_seconds=delay_seconds,
            place=place,
        )

    def _counts(self) -> bool:
        """Whether the doorbells are counted for this run: it costs, and a few too many do no harm."""
        self._uncounted += 1
        if self._uncounted < UNCOUNTED_RUNS and time.monotonic() - self._counted_at < LOOK_AGAIN_SECONDS:
            return False
        self._uncounted, self._counted_at = 0, time.monotonic()
        return True

    def _created(self, new: NewRun, answer: Rows) -> dict[str, Any]:
        rows = self._journal.read(READ_RUN, {"run": answer[0][0] if answer else new.id})
        if not rows:
            params = {"project": new.project, "idempotency_key": new.idempotency_key}
            rows = self._journal.read(READ_RUN_BY_KEY, params)
        return run_record(rows[0])

    # -- what is pending

    def admit(self, pending: Iterable[Mapping[str, Any]]) -> list[Doorbell]:
        """Return whom to ring of runs that were created by others, and are pending."""
        return self._admitted(pending)

    def _admitted(self, runs: Iterable[Mapping[str, Any]]) -> list[Doorbell]:
        """Admit those of new runs that may begin; what this misses, a worker admits within a second."""
        bells: list[Doorbell] = []
        wanted: dict[Place, set[tuple[str, str]]] = {}
        for run in runs:
            if run["not_before"] is None:
                lanes = wanted.setdefault((run["project"], run["deployment"]), set())
                if run["slot"] == QueueSlot.WANTED:
                    lanes.add((run["queue"], run["concurrency_key"]))
        for place, lanes in wanted.items():
            if lanes:
                bells += self._admitter(place).admit(lanes).bells
            elif time.monotonic() - self._looked.get(place, 0.0) > LOOK_AGAIN_SECONDS:
                self._looked[place] = time.monotonic()
                bells += self._admitter(place).admit().bells
        return bells

    def _admitter(self, place: Place) -> Admitter:
        if place not in self._admitters:
            self._admitters[place] = Admitter(
                self._journal,
                project=place[0],
                deployment=place[1],
                window=self._settings.doorbells_per_route,
                ring_again=self._settings.ring_again_seconds,
                silence_limit_seconds=self._settings.silence_limit_seconds,
            )
        return self._admitters[place]


def _split(request: Request) -> tuple[NewRun, int | None, float]:
    columns = dict(request)
    limit, delay_seconds = columns.pop("queue_limit", None), columns.pop("delay_seconds", 0.0)
    return NewRun(**columns), limit, delay_seconds


def _queue_of(run: NewRun) -> tuple[str, str, str]:
    return run.project, run.deployment, run.queue


def _doorbell(run: dict[str, Any]) -> Doorbell:
    return Doorbell(run["id"], run["name"], run["route"], run["deployment"])
