"""A worker in the journal: its row, what it offers, and what the code of that declares."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from polos.journal.postgres import TransientConflictError
from polos.journal.recovery import ring_offered
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.journal.workers import READ_CLOCK, Offer, WorkerRow, offer_definitions, register_worker
from polos.routes import Routes
from polos.settings import Settings
from polos.worker.declarations import declarations
from polos.worker.definitions import offers
from polos.worker.descriptions import described

logger = logging.getLogger("polos.worker")


class Journal(Protocol):
    """A blocking connection to the journal."""

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Run `units` as one transaction."""


@dataclass(frozen=True)
class Registration:
    """How one worker enters itself and what it offers.

    Attributes:
        hostname: Celery node name.
        kind: ``celery`` or ``embedded``.
        served: The routes this worker serves.
    """

    settings: Settings
    routes: Routes
    hostname: str
    kind: str
    concurrency: int
    served: Collection[str]

    def enter(self, worker_id: str, journal: Journal, *, lock_key: int | None = None) -> None:
        """Enter the worker, which holds its lock already: a sweeper that sees the row finds the lock held."""
        offered = self.offers()
        row, details = self._row(worker_id), described(offered, self.routes)
        journal.commit([register_worker(row, offered, details=details, lock_key=lock_key)])
        self._declare(journal, offered)
        journal.commit([self._waited_for(worker_id)])
        if not offered:
            logger.warning(
                "This worker offers nothing: no agent, tool or workflow is imported. Name the modules that "
                "define them in POLOS_IMPORTS, or as arguments of 'polos worker'."
            )

    def offer_again(self, worker_id: str, now: float) -> Iterable[Unit]:
        """Return the units, each to be committed alone, that offer what is new; `now`: READ_CLOCK."""
        offered = self.offers()
        yield offer_definitions(worker_id, offered, details=described(offered, self.routes))
        yield from declarations(self.settings, self.routes, offered, now=now)
        yield self._waited_for(worker_id)

    def offers(self) -> list[Offer]:
        """Return what this worker offers now."""
        return offers(self.routes, self.served)

    def _row(self, worker_id: str) -> WorkerRow:
        return WorkerRow(
            id=worker_id,
            hostname=self.hostname,
            pid=os.getpid(),
            project=self.settings.project_id,
            deployment=self.settings.deployment_id,
            kind=self.kind,
            routes=",".join(sorted(self.served)),
            concurrency=self.concurrency,
        )

    def _declare(self, journal: Journal, offered: Collection[Offer]) -> None:
        """Enter the schedules and triggers of what this worker offers, one by one."""
        [(now, _)] = journal.read(READ_CLOCK, {})
        for unit in declarations(self.settings, self.routes, offered, now=now):
            certainly(journal, unit)

    def _waited_for(self, worker_id: str) -> Unit:
        settings = self.settings
        return ring_offered(worker_id, project=settings.project_id, deployment=settings.deployment_id)


def certainly(journal: Journal, unit: Unit) -> None:
    """Commit a unit, again while it gets into the way of another worker's."""
    while True:
        try:
            journal.commit([unit])
            return
        except TransientConflictError:
            continue  # the database chose us to give way; the other is done
