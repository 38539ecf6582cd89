"""A journal that a test writes by the units workers use, and the commands that read it."""

from __future__ import annotations

import uuid
from typing import Any

from typer.testing import CliRunner, Result

from polos.cli.main import app
from polos.journal.children import create_children
from polos.journal.database import Database
from polos.journal.runs import Claim, Ending, NewRun, claim_from, claim_run, create_run, finish_run
from polos.journal.statements import Unit
from polos.journal.states import RunStatus
from polos.journal.steps import claim_turn, schedule_turn
from polos.journal.workers import WorkerRow, register_worker

PLACE = {"project": "default", "deployment": "default"}


def polos(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


class Written:
    """One journal. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._connection = database.connect()

    def close(self) -> None:
        self._connection.close()

    def do(self, unit: Unit) -> Any:
        [rows] = self._connection.commit([unit])
        return rows

    def run(self, name: str = "flow", *, run_id: str | None = None, **values: Any) -> str:
        """Create a queued run; return its id."""
        new = self._new(name, run_id or str(uuid.uuid4()), **values)
        assert self.do(create_run(new, ring_again=60.0))
        return new.id

    def child(self, parent: Claim, name: str = "child", *, step: str = "ask") -> str:
        """Create a child that `parent` waits for; return its id."""
        links = {"parent_id": parent.id, "parent_step": step, "awaited": 1, "depth": 1}
        new = self._new(name, str(uuid.uuid4()), root_id=parent.root_id, **links)
        assert self.do(create_children(parent.id, parent.attempt, [new], positions=[0], ring_again=60.0))
        return new.id

    def claimed(self, run_id: str, worker: str = "w1", **place: str) -> Claim:
        """Let a worker claim a queued run."""
        return claim_from(self.do(claim_run(run_id, worker, **{**PLACE, **place}))[0])

    def ended(self, run_id: str, status: RunStatus = RunStatus.COMPLETED, **ending: Any) -> str:
        """Let a worker claim a queued run and end it; return its id."""
        claim = self.claimed(run_id)
        assert self.do(finish_run(claim.id, claim.attempt, Ending(status, **ending)))
        return run_id

    def turn(self, run: Claim, *, worker: str | None = None) -> None:
        """Schedule a turn of a run, and let a worker claim it."""
        scheduled = schedule_turn(
            run.id, run.attempt, "$turn:1", position=0, input_text="{}", ring_again=60.0
        )
        assert self.do(scheduled)
        if worker is not None:
            assert self.do(claim_turn(run.id, "$turn:1", worker, **PLACE))

    def worker(self, worker_id: str, *offers: tuple[str, str], **values: Any) -> None:
        """Register a worker that offers these."""
        row = {
            "id": worker_id,
            "hostname": f"{worker_id}@here",
            "pid": 1234,
            "kind": "celery",
            "routes": "polos",
            "concurrency": 7,
            **PLACE,
            **values,
        }
        assert self.do(register_worker(WorkerRow(**row), offers))

    @staticmethod
    def _new(name: str, run_id: str, **values: Any) -> NewRun:
        given = {"kind": "workflow", "queue": name, "route": "polos", "root_id": run_id, **PLACE, **values}
        return NewRun(id=run_id, name=name, root_name=name, **given)
