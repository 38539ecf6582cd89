"""Runs in queues, moved by hand: started, admitted, claimed, parked, ended."""

from __future__ import annotations

from itertools import count
from typing import Any

from polos.admission import Admitter, Outcome
from polos.journal.children import create_children
from polos.journal.creating import create_run
from polos.journal.database import Connection, Database
from polos.journal.ends import Ending, finish_run
from polos.journal.queues import Limits, declare_queue, set_queue
from polos.journal.runs import READ_RUN, Claim, NewRun, claim_from, claim_run, park_run, run_record
from polos.journal.statements import Rows, Statement, Unit
from polos.journal.states import RunStatus
from polos.journal.workers import WorkerRow, register_worker

HERE = {"project": "default", "deployment": "default"}
RING_AGAIN = 60.0


class Counter:
    """The journal of one test."""

    def __init__(self, database: Database, *, window: int = 10) -> None:
        self.database = database
        self.window = window
        self._numbers = count(1)
        self._connections: list[Connection] = []
        self.journal = self.connect()
        self.offer("flow", "child")
        self._admitter = self.admitter()

    def connect(self) -> Connection:
        self._connections.append(self.database.connect())
        return self._connections[-1]

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def admitter(self) -> Admitter:
        """Return one more, with a connection of its own."""
        return Admitter(
            self.connect(),
            **HERE,
            window=self.window,
            ring_again=RING_AGAIN,
            silence_limit_seconds=600.0,
        )

    def offer(self, *names: str) -> None:
        """Let a live worker offer definitions."""
        worker = WorkerRow(
            id=f"worker-{next(self._numbers)}",
            hostname="w",
            pid=1,
            kind="celery",
            routes="polos",
            concurrency=1,
            **HERE,
        )
        self.do(register_worker(worker, [("workflow", name) for name in names]))

    def do(self, unit: Unit) -> Rows:
        [rows] = self.journal.commit([unit])
        return rows

    def read(self, statement: Statement, **params: Any) -> Rows:
        return self.journal.read(statement, params)

    # -- queues and runs

    def limit(self, name: str, concurrency: int | None = None, **limits: Any) -> None:
        self.do(declare_queue(**HERE, name=name, limits=Limits(concurrency, **limits)))

    def change(self, name: str, **changes: Any) -> None:
        self.do(set_queue(**HERE, name=name, changes=changes))

    def start(self, queue: str = "flow", *, delay: float = 0.0, **values: Any) -> str:
        """Start a run as a client does; return its id."""
        run_id = f"run-{next(self._numbers)}"
        given = {"kind": "workflow", "name": "flow", "route": "polos", **HERE, **values}
        new = NewRun(id=run_id, root_id=run_id, root_name=given["name"], queue=queue, **given)
        unit = create_run(new, ring_again=RING_AGAIN, window=self.window, delay_seconds=delay)
        rows = self.do(unit)
        return str(rows[0][0])

    def start_many(self, number: int, queue: str = "flow", **values: Any) -> list[str]:
        return [self.start(queue, **values) for _ in range(number)]

    def child(self, parent: Claim, queue: str, *, step: str = "child") -> str:
        """Start a child that `parent` waits for."""
        new = NewRun(
            id=f"{parent.id}-{step}",
            **HERE,
            kind="workflow",
            name="child",
            queue=queue,
            route="polos",
            root_id=parent.root_id,
            root_name=parent.root_name,
            parent_id=parent.id,
            parent_step=step,
            awaited=1,
            depth=parent.depth + 1,
        )
        assert self.do(
            create_children(parent.id, parent.attempt, [new], positions=[0], ring_again=RING_AGAIN)
        )
        return new.id

    def claim(self, run_id: str, worker: str = "w") -> Claim:
        rows = self.do(claim_run(run_id, worker, **HERE))
        assert rows, f"run {run_id} cannot be claimed: {self.run(run_id)['slot']}"
        return claim_from(rows[0])

    def can_be_claimed(self, run_id: str) -> bool:
        return bool(self.do(claim_run(run_id, "w", **HERE)))

    def park(self, run: Claim) -> None:
        assert self.do(park_run(run.id, run.attempt, seen_wakes=run.wakes))

    def end(self, run: Claim) -> None:
        assert self.do(
            finish_run(run.id, run.attempt, Ending(RunStatus.COMPLETED, output="1"), root_id=run.root_id)
        )

    def run(self, run_id: str) -> dict[str, Any]:
        return run_record(self.read(READ_RUN, run=run_id)[0])

    # -- admission

    def look(self, *lanes: tuple[str, str]) -> Outcome:
        return self._admitter.admit(lanes or None)

    def admitted(self, *lanes: tuple[str, str]) -> list[str]:
        """Admit; return the ids of who is rung, in order."""
        return [bell.run_id for bell in self.look(*lanes).bells]

    def slots(self, *run_ids: str) -> list[str | None]:
        return [self.run(run_id)["slot"] for run_id in run_ids]
