"""Topics and triggers in a journal, and sweepers that start what events trigger."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from services import plain_routes
from sqlalchemy import bindparam, select, update

from polos.dispatch import Doorbell
from polos.journal.creating import create_run
from polos.journal.database import Database
from polos.journal.events import EVENTS, E, NewEvent, publish
from polos.journal.liveness import liveness_for
from polos.journal.runs import READ_RUN, RUNS, NewRun, R, run_record
from polos.journal.statements import Part, Rows, Statement, Unit
from polos.journal.triggers import READ_TRIGGERS, NewTrigger, declare_trigger, trigger_record
from polos.journal.workers import READ_CLOCK, WorkerRow, register_worker, remove_worker
from polos.settings import Settings
from polos.triggers import Fired, fire_triggers
from polos.worker.declarations import declarations
from polos.worker.duties.triggers import FireTriggers
from polos.worker.sweeper import Sweeper

P = bindparam
PATIENCE_SECONDS = 60.0
_RUNS = Statement(select(*RUNS.c).where(R.name == P("name")))
_AGE = Statement(
    update(EVENTS)
    .where(E.topic == P("topic"))
    .values(created_at=E.created_at - P("seconds"))
    .returning(E.number)
)


class Bells:
    """A dispatcher that keeps what was rung."""

    def __init__(self) -> None:
        self.rung: list[Doorbell] = []

    def ring(self, *doorbells: Doorbell) -> None:
        self.rung += doorbells


class Post:
    """Words for what happens to events."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.journal = database.connect()
        self.bells = Bells()
        self.settings = Settings(max_trigger_hops=3, sweep_seconds=0.01)
        self._sweepers: list[Sweeper] = []

    # -- triggers and events

    def trigger(
        self, workflow: str, topic: str, *, size: int = 1, seconds: float | None = None, **values: Any
    ) -> None:
        """Enter a trigger, as code of a deployment declares it."""
        fixed = {"project": "default", "deployment": "default", "kind": "workflow", "queue": workflow}
        values.setdefault("declared_by", values.get("deployment", "default"))
        new = NewTrigger(
            workflow=workflow,
            topic=topic,
            route="polos",
            batch_size=size,
            batch_timeout_seconds=seconds,
            **{**fixed, **values},
        )
        self.do(declare_trigger(new, silence=10))

    def publish(self, topic: str, *data: Any, project: str = "default", by: str | None = None) -> None:
        events = [NewEvent("said", json.dumps({"n": value}), by) for value in data]
        assert self.do(publish(project, topic, events))

    def age(self, topic: str, seconds: float) -> None:
        """Say that the events of a topic were published earlier."""
        self.do(Unit((Part(_AGE, {"topic": topic, "seconds": seconds}),), ()))

    def triggers(self, project: str = "default") -> dict[tuple[str, str], dict[str, Any]]:
        records = [trigger_record(row) for row in self.journal.read(READ_TRIGGERS, {"project": project})]
        return {(record["workflow"], record["topic"]): record for record in records}

    def runs(self, workflow: str) -> list[dict[str, Any]]:
        """Return the runs of a workflow, in the order of their events."""
        found = [run_record(row) for row in self.journal.read(_RUNS, {"name": workflow})]
        return sorted(found, key=lambda run: _events(json.loads(run["input"]))[0]["sequence_id"])

    def told(self, workflow: str) -> list[Any]:
        """Return what the runs of a workflow were told: a number, or those of a batch."""
        return [_numbers(json.loads(run["input"])) for run in self.runs(workflow)]

    def run(self, **values: Any) -> str:
        """Create a run that may publish."""
        run_id = str(uuid.uuid4())
        here = {"project": "default", "deployment": "default", "kind": "workflow", "name": "publisher"}
        new = NewRun(
            id=run_id, queue="q", route="polos", root_id=run_id, root_name="publisher", **here, **values
        )
        self.do(create_run(new, ring_again=5))
        return run_id

    def record(self, run_id: str) -> dict[str, Any]:
        return run_record(self.journal.read(READ_RUN, {"run": run_id})[0])

    # -- who does something

    def fire(self) -> Fired:
        """Start what is due."""
        return fire_triggers(self.journal, self.settings)

    def worker(self, deployment: str, offered: Sequence[str]) -> str:
        """Do what a worker of a deployment does at its start; return its id."""
        settings = Settings(deployment_id=deployment)
        row = WorkerRow(uuid.uuid4().hex, "w@host", 1, "default", deployment, "celery", "polos", 1)
        names = [("workflow", name) for name in offered]
        self.do(register_worker(row, names))
        for unit in declarations(settings, plain_routes(), names, now=self.now()):
            self.do(unit)
        return row.id

    def gone(self, worker_id: str) -> None:
        self.do(remove_worker(worker_id))

    def sweeper(self) -> Sweeper:
        sweeper = Sweeper(
            self.database,
            liveness_for(self.database),
            self.bells,
            plain_routes(),
            self.settings,
            revive=lambda: None,
            duties=[FireTriggers()],
        )
        self._sweepers.append(sweeper)
        return sweeper

    def now(self) -> float:
        return float(self.journal.read(READ_CLOCK, {})[0][0])

    def do(self, unit: Unit) -> Rows:
        return self.journal.commit([unit])[0]

    def close(self) -> None:
        for sweeper in self._sweepers:
            sweeper.stop()
        self.journal.close()


def _events(payload: dict[str, Any]) -> list[dict[str, Any]]:
    return list(payload["events"]) if "events" in payload else [payload]


def _numbers(payload: dict[str, Any]) -> Any:
    numbers = [event["data"]["n"] for event in _events(payload)]
    return numbers if "events" in payload else numbers[0]


def until(condition: Any) -> None:
    """Return once `condition` holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.005)
