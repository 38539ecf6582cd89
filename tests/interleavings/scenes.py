"""Runs, steps and turns of a journal, in the few states that the interleavings start from."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

from hands import Hand, close_all, hand

from polos.journal.children import create_children, finish_child
from polos.journal.creating import create_run
from polos.journal.database import Database
from polos.journal.ends import Ending, finish_run
from polos.journal.recovery import put_back_runs, put_back_turns
from polos.journal.runs import READ_RUN, Claim, NewRun, claim_from, claim_run, park_run, run_record
from polos.journal.statements import Rows, Unit
from polos.journal.states import RunStatus, StepStatus
from polos.journal.steps import READ_STEPS, Outcome, StepRow, record_step, schedule_turn, step_from
from polos.journal.turns import TurnClaim, claim_turn, complete_turn

PLACE = {"project": "default", "deployment": "default"}
RING_AGAIN = 5.0
DONE = Outcome(StepStatus.COMPLETED, output='"done"')


class Scene:
    """The journal of one test. `hand()` opens one more connection; `self.first` sets the scene."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._hands: list[Hand] = []
        self._numbers = count(1)
        self.first = self.hand()

    def hand(self) -> Hand:
        self._hands.append(hand(self.database))
        return self._hands[-1]

    def close(self) -> None:
        close_all(self._hands)

    def do(self, unit: Unit) -> Rows:
        [rows] = self.first.commit(unit)
        return rows

    # -- what there is

    def new_run(self, **values: Any) -> NewRun:
        run_id = f"run-{next(self._numbers)}"
        given = {"kind": "workflow", "name": "flow", "queue": "flow", "route": "polos", **PLACE, **values}
        return NewRun(id=run_id, root_id=given.pop("root_id", run_id), root_name=given["name"], **given)

    def queued(self, **values: Any) -> str:
        """Create a run; return its id."""
        new = self.new_run(**values)
        assert self.do(create_run(new, ring_again=RING_AGAIN))
        return new.id

    def running(self, worker: str, **values: Any) -> Claim:
        """Create a run and let `worker` claim it."""
        return self.claimed(self.queued(**values), worker)

    def claimed(self, run_id: str, worker: str) -> Claim:
        rows = self.do(claim(run_id, worker))
        assert rows, f"run {run_id} cannot be claimed"
        return claim_from(rows[0])

    def child(self, parent: Claim, *, step: str = "child", **values: Any) -> NewRun:
        """Create a child that `parent` waits for."""
        new = replace(child_of(parent, step), **values)
        assert self.do(creation(parent, new))
        return new

    def turn(self, run: Claim, name: str = "$turn:1", *, worker: str | None = None) -> TurnClaim:
        """Schedule a turn of `run`, and let `worker` claim it."""
        assert self.do(scheduling(run, name))
        rows = self.do(turn_claim(run.id, name, worker)) if worker else [(run.id, name, 0, 0, 0, 0, None)]
        assert rows
        return TurnClaim(*rows[0])

    def lose(self, worker: str) -> None:
        """Put back what a dead worker owned."""
        self.do(put_back_turns(worker))
        self.do(put_back_runs(worker))

    # -- what became of it

    def run(self, run_id: str) -> dict[str, Any]:
        [row] = self.first.read(READ_RUN, run=run_id)
        return run_record(row)

    def steps(self, run_id: str) -> dict[str, StepRow]:
        rows = self.first.read(READ_STEPS, run=run_id)
        return {step.name: step for step in map(step_from, rows)}


# -- units with everything but the point filled in


def claim(run_id: str, worker: str) -> Unit:
    return claim_run(run_id, worker, **PLACE)


def recording(run: Claim, worker: str, name: str = "step", outcome: Outcome = DONE) -> Unit:
    return record_step(run.id, run.attempt, name, "run", outcome, position=0, tries=1, worker=worker)


def scheduling(run: Claim, name: str = "$turn:1") -> Unit:
    return schedule_turn(run.id, run.attempt, name, position=0, input_text="{}", ring_again=RING_AGAIN)


def turn_claim(run_id: str, name: str, worker: str) -> Unit:
    return claim_turn(run_id, name, worker, **PLACE)


def turn_completion(
    turn: TurnClaim, worker: str, outcome: Outcome = DONE, *, root_id: str | None = None
) -> Unit:
    return complete_turn(turn, worker, outcome, root_id=root_id or turn.run_id, ring_again=RING_AGAIN)


def child_of(parent: Claim, step: str = "child") -> NewRun:
    return NewRun(
        id=f"{parent.id}/{step}",
        kind="workflow",
        name="child",
        queue="child",
        route="polos",
        root_id=parent.root_id,
        root_name=parent.root_name,
        parent_id=parent.id,
        parent_step=step,
        awaited=1,
        depth=parent.depth + 1,
        **PLACE,
    )


def creation(parent: Claim, *children: NewRun) -> Unit:
    positions = list(range(len(children)))
    return create_children(parent.id, parent.attempt, children, positions=positions, ring_again=RING_AGAIN)


def parking(run: Claim, *, seen_wakes: int | None = None) -> Unit:
    return park_run(run.id, run.attempt, seen_wakes=run.wakes if seen_wakes is None else seen_wakes)


def finishing(run: Claim, output: str = '"end"') -> Unit:
    ending = Ending(RunStatus.COMPLETED, output=output)
    if run.parent_id is None or run.parent_step is None:
        return finish_run(run.id, run.attempt, ending, root_id=run.root_id)
    return finish_child(
        run.id,
        run.attempt,
        ending,
        root_id=run.root_id,
        parent_id=run.parent_id,
        parent_step=run.parent_step,
        ring_again=RING_AGAIN,
    )
