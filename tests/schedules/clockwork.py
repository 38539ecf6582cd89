"""Schedules in a journal whose ticks are moved by hand, and sweepers that fire them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services import plain_routes
from sqlalchemy import bindparam, select, update

from polos.cron import CronSchedule, next_tick
from polos.dispatch import Doorbell
from polos.journal.database import Database
from polos.journal.ends import Ending, finish_run
from polos.journal.liveness import liveness_for
from polos.journal.runs import RUNS, R, claim_run, run_record
from polos.journal.schedules import SCHEDULES, S
from polos.journal.statements import Part, Rows, Statement, Unit
from polos.journal.states import RunStatus
from polos.journal.workers import READ_CLOCK, WorkerRow, register_worker
from polos.settings import Settings
from polos.timetable import Place, Timetable
from polos.worker.declarations import declarations
from polos.worker.descriptions import described
from polos.worker.duties.schedules import FireSchedules
from polos.worker.sweeper import Sweeper

P = bindparam
PATIENCE_SECONDS = 60.0
_MOVE = Statement(update(SCHEDULES).where(S.id == P("id")).values(next_at=P("next_at")).returning(S.id))
_RUNS = Statement(select(*RUNS.c).where(R.schedule_id == P("schedule")).order_by(R.created_at, R.input))


class Bells:
    """A dispatcher that keeps what was rung."""

    def __init__(self) -> None:
        self.rung: list[Doorbell] = []

    def ring(self, *doorbells: Doorbell) -> None:
        self.rung += doorbells


class Clockwork:
    """Words for what happens to schedules."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.journal = database.connect()
        self.bells = Bells()
        self.timetable = self.timetable_of("default")
        self._sweepers: list[Sweeper] = []

    # -- schedules

    def timetable_of(self, project: str) -> Timetable:
        return Timetable(
            self.journal,
            project,
            silence_limit_seconds=60,
            place_here=lambda name: Place("default", "workflow", "polos"),
        )

    def schedule(
        self, cron: str = "* * * * *", *, key: str = "global", catch_up: Any = "one", timezone: str = "UTC"
    ) -> str:
        return self.timetable.create("report", CronSchedule(cron, timezone, key, catch_up))

    def last_ticks(self, schedule_id: str, count: int) -> list[float]:
        """Return the last ticks up to now."""
        cron = self.timetable.row(schedule_id)["cron"]
        found, tick = (
            [],
            next_tick(cron, "UTC", self.now() - 40 * 86400 if cron != "* * * * *" else self.now() - 7200),
        )
        while tick is not None and tick <= self.now():
            found.append(tick)
            tick = next_tick(cron, "UTC", tick)
        return found[-count:]

    def move(self, schedule_id: str, tick: float) -> None:
        """Say that the next tick of a schedule is at `tick`."""
        assert self.do(Unit((Part(_MOVE, {"id": schedule_id, "next_at": tick}),), ()))

    def runs(self, schedule_id: str) -> list[dict[str, Any]]:
        return [run_record(row) for row in self.journal.read(_RUNS, {"schedule": schedule_id})]

    def ticks(self, schedule_id: str) -> list[float]:
        """Return the times that runs were due."""
        return [
            datetime.fromisoformat(json.loads(run["input"])["timestamp"]).timestamp()
            for run in self.runs(schedule_id)
        ]

    def now(self) -> float:
        return float(self.journal.read(READ_CLOCK, {})[0][0])

    # -- who does something

    def worker(self, deployment: str, offered: Sequence[str], *, declares: bool = True) -> str:
        """Start what a worker of a deployment starts with; return its id."""
        settings = Settings(deployment_id=deployment)
        row = WorkerRow(uuid.uuid4().hex, "w@host", 1, "default", deployment, "celery", "polos", 1)
        names = [("workflow", name) for name in offered]
        self.do(register_worker(row, names, details=described(names, plain_routes())))
        if declares:
            for unit in declarations(settings, plain_routes(), names, now=self.now()):
                self.do(unit)
        return row.id

    def end(self, run: dict[str, Any]) -> None:
        """Execute a run, to its end."""
        here = {"project": run["project"], "deployment": run["deployment"]}
        while claimed := self.do(claim_run(run["id"], "w", **here)):  # till no sweeper takes it from us
            if self.do(finish_run(run["id"], claimed[0][1], Ending(RunStatus.COMPLETED), root_id=run["id"])):
                return

    def sweep(self) -> None:
        """Let one sweeper do its duty once."""
        self.sweeper().sweep()

    def sweeper(self) -> Sweeper:
        sweeper = Sweeper(
            self.database,
            liveness_for(self.database),
            self.bells,
            plain_routes(),
            Settings(sweep_seconds=0.01),
            revive=lambda: None,
            duties=[FireSchedules()],
        )
        self._sweepers.append(sweeper)
        return sweeper

    def do(self, unit: Unit) -> Rows:
        return self.journal.commit([unit])[0]

    def close(self) -> None:
        for sweeper in self._sweepers:
            sweeper.stop()
        self.journal.close()


def until(condition: Any) -> None:
    """Return once `condition` holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.005)
