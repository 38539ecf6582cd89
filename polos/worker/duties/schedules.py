"""Starting what is due by the clock, each tick once, however many sweepers there are."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from polos import serialization
from polos.cron import last_tick, next_tick
from polos.dispatch import Doorbell
from polos.journal.runs import NewRun
from polos.journal.schedules import (
    MAX_DUE,
    PAUSED,
    READ_DUE_SCHEDULES,
    READ_NEXT_TICK,
    DueSchedule,
    due_schedule,
    fire_schedule,
    pass_over,
    set_schedule_status,
)
from polos.journal.statements import Rows, Unit
from polos.journal.workers import READ_OFFERS
from polos.timetable import payload_of
from polos.worker.duties.desk import Desk

logger = logging.getLogger("polos.schedules")

LATE_SECONDS = 60.0  # a tick later than this was missed
MAX_PAGES = 10  # of due schedules in one look; other duties wait meanwhile


@dataclass(frozen=True)
class _Move:
    """What becomes of a due schedule: the run it starts, if any."""

    unit: Unit
    run: NewRun | None = None


class _Served:
    """Where runs of workflows go, asked once in a look."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._newest: dict[tuple[str, str], str | None] = {}

    def deployment(self, due: DueSchedule) -> str:
        """Return the deployment that declares a schedule; if a program made it, the newest that serves it."""
        if due.declared_by is not None:
            return due.deployment
        place = (due.project, due.workflow)
        if place not in self._newest:
            self._newest[place] = self._served_newest(*place)
        return self._newest[place] or due.deployment

    def _served_newest(self, project: str, workflow: str) -> str | None:
        silence = self._desk.settings.silence_limit_seconds
        offers = self._desk.read(READ_OFFERS, {"project": project, "name": workflow, "silence": silence})
        return offers[0][0] if offers else None


class FireSchedules:
    """Starts the runs of ticks that have come. A tick waits while an earlier run of its schedule goes on."""

    every_seconds = 0.0

    def do(self, desk: Desk) -> float | None:
        """Start the runs of what is due; return the seconds until the next tick."""
        for _ in range(MAX_PAGES):
            if self._start_some(desk) < MAX_DUE:
                [(seconds,)] = desk.read(READ_NEXT_TICK)
                return None if seconds is None else max(float(seconds), 0.0)
        return 0.0

    def _start_some(self, desk: Desk) -> int:
        """Start up to MAX_DUE runs; return how many schedules were due."""
        found = [due_schedule(row) for row in desk.read(READ_DUE_SCHEDULES)]
        served = _Served(desk)
        # In one order everywhere: rows that sweepers lock in several would make them wait for each other.
        moves = [_move(desk, due, served) for due in sorted(found, key=lambda due: due.id)]
        if moves:
            answers = desk.commit([move.unit for move in moves])
            desk.ring(*_doorbells(moves, answers))
            if any(_is_pending(move, rows) for move, rows in zip(moves, answers, strict=True)):
                desk.admit()
        return len(moves)


def _move(desk: Desk, due: DueSchedule, served: _Served) -> _Move:
    try:
        tick, starts = _tick(due)
        following = next_tick(due.cron, due.timezone, tick)
    except ValueError as error:  # stored by a version of the library that could read it
        logger.error("Schedule %s of %r is paused, it cannot be read: %s", due.id, due.workflow, error)
        return _Move(set_schedule_status(due.project, due.id, PAUSED, next_at=None))
    if not starts:
        return _Move(pass_over(due, following=following))
    new = _new_run(due, tick, upcoming=following or tick, deployment=served.deployment(due))
    unit = fire_schedule(
        due,
        new,
        tick=tick,
        following=following,
        ring_again=desk.settings.ring_again_seconds,
        window=desk.settings.doorbells_per_route,
    )
    return _Move(unit, new)


def _tick(due: DueSchedule) -> tuple[float, bool]:
    """Return which of the ticks that have come counts, and whether it starts a run."""
    if due.catch_up == "all":
        return due.next_at, True
    tick = last_tick(due.cron, due.timezone, due.next_at, due.now) or due.next_at
    return tick, due.catch_up == "one" or due.now - tick <= LATE_SECONDS


def _new_run(due: DueSchedule, tick: float, *, upcoming: float, deployment: str) -> NewRun:
    run_id = due.run_id(tick)
    payload = payload_of(vars(due), tick=tick, upcoming=upcoming)
    return NewRun(
        id=run_id,
        project=due.project,
        deployment=deployment,
        kind=due.kind,
        name=due.workflow,
        queue=due.workflow,
        route=due.route,
        root_id=run_id,
        root_name=due.workflow,
        session_id=str(uuid.uuid4()),
        concurrency_key=due.key,
        schedule_id=due.id,
        input=serialization.dumps(payload),
    )


def _doorbells(moves: Sequence[_Move], answers: Sequence[Rows]) -> Iterator[Doorbell]:
    """Yield those of runs that were started and are not pending."""
    for move, rows in zip(moves, answers, strict=True):
        if (new := move.run) is not None and rows and not _is_pending(move, rows):
            yield Doorbell(new.id, new.name, new.route, new.deployment)


def _is_pending(move: _Move, answer: Rows) -> bool:
    return move.run is not None and bool(answer) and answer[0][1] is not None
