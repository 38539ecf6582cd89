"""A journal that a test writes by the units workers use, and the commands that read it."""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from polos.cli.main import app
from polos.journal.children import create_children
from polos.journal.creating import create_run
from polos.journal.database import Database
from polos.journal.ends import Ending, finish_run
from polos.journal.runs import Claim, NewRun, claim_from, claim_run
from polos.journal.spending import Spent
from polos.journal.statements import Unit
from polos.journal.states import RunStatus, StepStatus
from polos.journal.steps import Outcome, schedule_turn
from polos.journal.turns import TurnClaim, claim_turn, complete_turn
from polos.journal.workers import READ_CLOCK, WorkerRow, register_worker

PLACE = {"project": "default", "deployment": "default"}


def polos(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


class Written:
    """One journal. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._connection = database.connect()
        self._last_created = 0.0

    def close(self) -> None:
        self._connection.close()

    def do(self, unit: Unit) -> Any:
        [rows] = self._connection.commit([unit])
        return rows

    def run(self, name: str = "flow", *, run_id: str | None = None, **values: Any) -> str:
        """Create a queued run, later than those before; return its id."""
        while self._connection.read(READ_CLOCK, {})[0][0] <= self._last_created:
            time.sleep(0.001)  # SQLite's clock has milliseconds
        new = self._new(name, run_id or str(uuid.uuid4()), **values)
        [(created, self._last_created)] = self.do(create_run(new, ring_again=60.0))
        return str(created)

    def child(self, parent: Claim, name: str = "child", *, step: str = "ask", kind: str = "workflow") -> str:
        """Create a child that `parent` waits for; return its id."""
        links = {"parent_id": parent.id, "parent_step": step, "awaited": 1, "depth": 1}
        new = self._new(name, str(uuid.uuid4()), root_id=parent.root_id, kind=kind, **links)
        assert self.do(create_children(parent.id, parent.attempt, [new], positions=[0], ring_again=60.0))
        return new.id

    def claimed(self, run_id: str, worker: str = "w1", **place: str) -> Claim:
        """Let a worker claim a queued run."""
        return claim_from(self.do(claim_run(run_id, worker, **{**PLACE, **place}))[0])

    def ended(self, run_id: str, status: RunStatus = RunStatus.COMPLETED, **ending: Any) -> str:
        """Let a worker claim a queued run and end it; return its id."""
        claim = self.claimed(run_id)
        assert self.do(finish_run(claim.id, claim.attempt, Ending(status, **ending), root_id=claim.root_id))
        return run_id

    def turn(self, run: Claim, *, worker: str | None = None) -> None:
        """Schedule a turn of a run, and let a worker claim it."""
        scheduled = schedule_turn(
            run.id, run.attempt, "$turn:1", position=0, input_text="{}", ring_again=60.0
        )
        assert self.do(scheduled)
        if worker is not None:
            assert self.do(claim_turn(run.id, "$turn:1", worker, **PLACE))

    def answered_turn(
        self, run: Claim, *, tokens_in: int, tokens_out: int, cost: float | None = None
    ) -> None:
        """Let a worker make a turn of a run."""
        self.turn(run)
        claim = TurnClaim(*self.do(claim_turn(run.id, "$turn:1", "w1", **PLACE))[0])
        usage = {
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        }
        answer = Outcome(StepStatus.COMPLETED, output=json.dumps({"content": "yes", "usage": usage}))
        spent = Spent(
            run.name,
            "openai/gpt-4o",
            calls=1,
            unpriced_calls=int(cost is None),
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            cost=cost,
        )
        ended = complete_turn(claim, "w1", answer, root_id=run.root_id, ring_again=60.0, spent=spent)
        assert self.do(ended)

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


def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("POLOS_")]:
        monkeypatch.delenv(name)
