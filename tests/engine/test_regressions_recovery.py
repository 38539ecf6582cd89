"""Runs that could once be lost, repeated without end or executed twice: one test for each."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing as closed
from typing import Any

import pytest
from fleet import SETTINGS, Fleet, until
from fleet import fleet as open_fleet

from polos import WorkflowContext, workflow
from polos.dispatch import DispatchThread, Doorbell
from polos.engine.execution import Execution
from polos.journal.database import Database
from polos.journal.runs import claim_from, claim_run
from polos.journal.states import StepStatus
from polos.journal.steps import Outcome, StepRow, schedule_turn
from polos.journal.turns import TurnClaim, claim_turn, complete_turn
from polos.worker.audit import STRAYS_AFTER_AUDITS, Audit
from polos.worker.drain import drain

PLACE = {"project": "default", "deployment": "default"}
log: list[Any] = []
gates: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    log.clear()
    gates.clear()
    gates["open"] = asyncio.Event()


# -- wakes are counted once


async def test_an_answer_read_before_it_is_handed_over_counts_as_one_wake(database: Database) -> None:
    """Counted twice it hides the next wake: the run is parked though something happened for it, for ever."""
    async with open_fleet(database) as fleet:
        journal = fleet.hire().runtime.journal
        run_id = fleet.create("agent")
        claim = claim_from((await journal.do(claim_run(run_id, "me", **PLACE)))[0])
        execution = Execution(claim, journal, worker_id="me")
        unit = schedule_turn(run_id, claim.attempt, "$turn:1", position=0, input_text="{}", ring_again=0.0)
        execution.scheduled((await journal.do(unit))[0][0])
        turn = TurnClaim(*(await journal.do(claim_turn(run_id, "$turn:1", "me", **PLACE)))[0])
        done = Outcome(StepStatus.COMPLETED, output='"answer"')
        [(_, _, seq, _)] = await journal.do(
            complete_turn(turn, "me", done, root_id=turn.run_id, ring_again=0.0)
        )
        await execution.refresh()  # an audit or a nudge, while the answer of the commit is under way
        execution.completed_here(
            StepRow("$turn:1", "turn", 0, seq, "completed", 1, '"answer"', None, None, None)
        )
        assert execution.seen_wakes == fleet.record(run_id)["wakes"] == 1


# -- attempts that fail for a reason of their own end


class _Unstorable:
    pass


@workflow(id="recovery-bad-state")
async def bad_state(ctx: WorkflowContext) -> None:
    log.append("attempt")
    ctx.state = {"what": _Unstorable()}
    raise TypeError("the reason")


async def test_a_run_whose_state_cannot_be_stored_fails_with_its_own_reason(sqlite: Database) -> None:
    settings = SETTINGS.with_values(max_run_retries=0)
    async with open_fleet(sqlite, settings) as fleet:
        fleet.hire()
        run = await fleet.until_ended(fleet.create("recovery-bad-state"))
    assert (run["status"], run["error"], log) == ("failed", "the reason", ["attempt"])


async def test_an_error_of_the_engine_is_a_failed_attempt(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Execution) -> None:
        raise LookupError("the journal holds nonsense")

    monkeypatch.setattr(Execution, "load", broken)
    async with open_fleet(sqlite, SETTINGS.with_values(max_run_retries=0)) as fleet:
        fleet.hire()
        run = await fleet.until_ended(fleet.create("recovery-bad-state"))
    assert (run["status"], run["error"]) == ("failed", "the journal holds nonsense")


# -- an audit leaves alone what is on its way


async def test_an_audit_leaves_a_run_alone_whose_claim_is_under_way(fleet: Fleet) -> None:
    """Handed back, it would be executed twice: here, where the claim's answer comes late, and elsewhere."""
    runtime = fleet.hire().runtime
    run_id = fleet.create("recovery-bad-state")
    fleet.do(claim_run(run_id, runtime.worker_id, **PLACE))
    runtime.claiming.add((run_id, ""))
    audit = Audit(runtime)
    for _ in range(STRAYS_AFTER_AUDITS + 1):
        await audit.check()
    assert fleet.record(run_id)["status"] == "running"
    runtime.claiming.clear()
    for _ in range(STRAYS_AFTER_AUDITS):
        await audit.check()
    assert fleet.record(run_id)["status"] == "queued"


# -- threads that must live


class _Sender:
    """A broker client that breaks in an unforeseen way, once."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.broke = threading.Event()

    def send(self, doorbells: Sequence[Doorbell]) -> None:
        if not self.broke.is_set():
            self.broke.set()
            raise LookupError("unforeseen")
        self.sent += [doorbell.run_id for doorbell in doorbells]


async def test_doorbells_are_rung_after_an_unforeseen_error_of_the_broker_client() -> None:
    sender = _Sender()
    reports: list[BaseException | None] = []
    dispatcher = DispatchThread(sender, reports.append)  # type: ignore[arg-type]
    dispatcher.ring(Doorbell("first", "flow"))
    assert sender.broke.wait(10)
    dispatcher.ring(Doorbell("second", "flow"))
    dispatcher.stop(timeout_seconds=10)
    assert sender.sent == ["second"]
    assert reports == [None]


# -- a worker that ends


@workflow(id="recovery-closing")
async def closing(ctx: WorkflowContext) -> Any:
    async def breaks_while_closing() -> str:
        if log:
            return "second worker"
        log.append("begun")
        await gates["open"].wait()
        raise RuntimeError("cannot schedule new futures after shutdown")

    return await ctx.step.run("step", breaks_while_closing, max_retries=0)


async def test_what_a_step_raises_while_its_worker_ends_is_no_outcome(fleet: Fleet) -> None:
    worker = fleet.hire()
    run_id = fleet.create("recovery-closing")
    fleet.sweep()
    await until(lambda: log)
    draining = asyncio.create_task(drain(worker.runtime, grace_seconds=10))
    await until(lambda: worker.runtime.draining)
    gates["open"].set()
    await asyncio.wait_for(draining, 10)
    assert fleet.record(run_id)["status"] == "queued"
    fleet.workers.clear()
    fleet.hire()
    assert (await fleet.until_ended(run_id))["output"] == '"second worker"'


async def test_every_turn_of_a_worker_that_ends_is_handed_back(fleet: Fleet) -> None:
    """More than one sweep's worth: the rest counted as crashes."""
    runtime = fleet.hire().runtime
    run_id = fleet.create("agent")
    claim = claim_from(fleet.do(claim_run(run_id, "other", **PLACE))[0])
    for number in range(205):
        name = f"$turn:{number}"
        fleet.do(
            schedule_turn(run_id, claim.attempt, name, position=number, input_text="{}", ring_again=60.0)
        )
        fleet.do(claim_turn(run_id, name, runtime.worker_id, **PLACE))
    await drain(runtime, grace_seconds=0)
    [(left,)] = _count(fleet, "SELECT count(*) FROM step WHERE status = 'running'")
    assert left == 0


def _count(fleet: Fleet, text: str) -> Any:
    with closed(sqlite3.connect(fleet.database.path)) as connection:
        return connection.execute(text).fetchall()
