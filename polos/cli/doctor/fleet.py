"""Checks of the fleet: who is there, and what waits for somebody who is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from polos.cli.cells import age
from polos.cli.doctor.findings import Check, Finding, note, ok, wrong
from polos.cli.journal import find_database
from polos.cli.workers import LIVE, SILENT, read_workers
from polos.errors import JournalUnavailableError
from polos.journal import schema
from polos.journal.database import Connection
from polos.journal.listing import READ_QUEUED, READ_SCHEDULED, waiting_work
from polos.journal.statements import Rows
from polos.journal.stuck import READ_FINDINGS
from polos.routes import Routes
from polos.settings import Settings
from polos.worker.broker import find_broker

RECENT_SECONDS = 86400.0


def fleet_checks(settings: Settings) -> dict[str, Check]:
    """Return the check of the workers and of what waits for them."""
    return {"workers": partial(check_fleet, settings)}


def check_fleet(settings: Settings) -> Iterator[Finding]:
    """Tell which workers live, and which runs and turns none of them can serve."""
    database = find_database(settings)
    try:
        if schema.current_version(database) != schema.HEAD:
            return  # the check of the database says so
        journal = database.connect()
    except JournalUnavailableError:
        yield note("workers", "not known: the database does not answer")
        return
    try:
        workers = read_workers(journal, silence_limit_seconds=settings.silence_limit_seconds)
        waiting = _waiting(journal, settings)
        stuck = journal.read(READ_FINDINGS, {})
    finally:
        journal.close()
    yield from _tell_stuck(stuck)
    yield from _tell_workers(workers, has_work=bool(waiting))
    for work in waiting:
        yield from _tell_waiting(work, workers)


def _tell_stuck(found: Rows) -> Iterator[Finding]:
    """Tell what sweepers found of late that nothing would have moved."""
    for name, count, run_id, _, found_at, now in found:
        if now - found_at < RECENT_SECONDS:
            advice = f"it was dealt with; polos runs show {run_id}, and the log of the workers, say more"
            yield note("runs", f"{count} times: {name}, the last {age(now - found_at)} ago", advice)


@dataclass(frozen=True)
class Waiting:
    """Runs or turns of one definition that wait for a worker on one route."""

    what: str
    project: str
    deployment: str
    route: str
    kind: str
    name: str
    count: int
    oldest_seconds: float

    def __str__(self) -> str:
        many = f"{self.count} {self.what}{'s' * (self.count != 1)}"
        place = f"project {self.project!r}, deployment {self.deployment!r}"
        return (
            f"{many} of {self.kind or 'definition'} {self.name!r} ({place}), since {age(self.oldest_seconds)}"
        )


def _waiting(journal: Connection, settings: Settings) -> list[Waiting]:
    """Return what is queued; turns go where `task_routes` of celeryconfig.py sends them."""
    runs = [waiting_work(row) for row in journal.read(READ_QUEUED, {})]
    turns = [waiting_work(row) for row in journal.read(READ_SCHEDULED, {})]
    if turns:
        routes = Routes(find_broker(settings).app)
        turns = [{**turn, "route": routes.of_turn(turn["name"], turn["route"])} for turn in turns]
    return [Waiting("run", **run) for run in runs] + [Waiting("turn", **turn) for turn in turns]


def _tell_workers(workers: list[dict[str, Any]], *, has_work: bool) -> Iterator[Finding]:
    silent = [worker["hostname"] for worker in workers if worker["state"] == SILENT]
    living = len(workers) - len(silent)
    if living:
        yield ok("workers", f"{living} live; polos workers shows them")
    elif has_work:
        yield wrong("workers", "none lives, and runs wait for one", "start one: polos worker my_module")
    else:
        yield note("workers", "none lives, and nothing waits for one")
    if silent:
        yield note(
            "workers",
            f"not heard of for a while: {', '.join(silent)}",
            "the next worker puts back what they owned",
        )


def _tell_waiting(work: Waiting, workers: list[dict[str, Any]]) -> Iterator[Finding]:
    """Tell when no worker can take `work`: none offers its definition, or none listens to its route."""
    serving = list(_serving(work, workers))
    if not serving:
        if any(worker["state"] == LIVE for worker in workers):
            yield wrong(
                "definitions",
                f"{work}: no live worker offers it",
                "start one that imports it (POLOS_IMPORTS), with that project and deployment",
            )
    elif not any(work.route in worker["routes"] for worker in serving):
        yield wrong(
            "routes",
            f"{work}: no live worker that offers it serves its route {work.route!r}",
            f"start one that does: polos worker my_module --queues {work.route}",
        )


def _serving(work: Waiting, workers: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for worker in workers:
        same = (worker["project"], worker["deployment"]) == (work.project, work.deployment)
        if same and worker["state"] == LIVE and any(_is(work, offered) for offered in worker["definitions"]):
            yield worker


def _is(work: Waiting, offered: dict[str, str]) -> bool:
    return offered["name"] == work.name and work.kind in ("", offered["kind"])
