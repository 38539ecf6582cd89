"""Run timeouts count the time in which a run runs, over all attempts, and no time in which it only waits."""

from __future__ import annotations

import asyncio

import pytest
from fleet import Fleet, until
from fleet import fleet as open_fleet

from polos import WorkflowContext, workflow
from polos.journal.database import Database
from polos.journal.recovery import wake_overdue
from polos.journal.runs import claim_run, park_run
from polos.journal.states import StepStatus
from polos.journal.steps import Outcome, schedule_turn
from polos.journal.turns import TurnClaim, claim_turn, complete_turn

pytestmark = pytest.mark.timeout(120)
HERE = {"project": "default", "deployment": "default"}


class Gate:
    """Code stops here until the test opens it."""

    def __init__(self) -> None:
        self.reached = 0
        self.event = asyncio.Event()

    async def __call__(self) -> None:
        self.reached += 1
        await self.event.wait()


GATES: dict[str, Gate] = {}


@workflow(id="time-child")
async def child(ctx: WorkflowContext) -> str:
    await GATES["child"]()
    return "child"


@workflow(id="time-waits")
async def waits(ctx: WorkflowContext) -> str:
    return str(await ctx.step.invoke_and_wait("child", child))


@workflow(id="time-waits-behind-a-lock")
async def waits_behind_a_lock(ctx: WorkflowContext) -> str:
    lock = asyncio.Lock()

    async def ask() -> None:
        async with lock:
            await ctx.step.invoke_and_wait("child", child)

    async def stand() -> None:
        await asyncio.sleep(0)
        async with lock:
            return

    await asyncio.gather(ask(), stand())
    return "child"


@workflow(id="time-runs")
async def runs(ctx: WorkflowContext) -> str:
    await GATES["own"]()
    return "done"


@pytest.fixture(autouse=True)
def gates() -> None:
    GATES.update(child=Gate(), own=Gate())


async def _pass(seconds: float) -> None:
    """Let more time pass than the limit of the run: what is tested is that nothing happens meanwhile."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    await until(lambda: loop.time() - start > seconds)


@pytest.mark.parametrize("name", ["time-waits", "time-waits-behind-a-lock"])
async def test_waiting_for_a_child_takes_no_running_time(database: Database, name: str) -> None:
    async with open_fleet(database) as fleet:
        fleet.hire()
        run_id = fleet.create(name, run_timeout_seconds=0.4)
        fleet.sweep()
        await until(lambda: GATES["child"].reached)
        await _pass(0.6)
        GATES["child"].event.set()
        run = await fleet.until_ended(run_id)
    assert run["status"] == "completed"
    assert run["running_seconds"] < 0.4


async def test_a_run_that_executes_is_out_of_time_and_says_why(fleet: Fleet) -> None:
    fleet.hire()
    run_id = fleet.create("time-runs", run_timeout_seconds=0.2)
    fleet.sweep()
    run = await fleet.until_ended(run_id)
    assert (run["status"], run["cancelled_by"]) == ("failed", "timeout")
    assert "timed out after 0.2 seconds" in run["error"]


async def test_the_time_of_lost_attempts_counts(fleet: Fleet) -> None:
    """A worker dies after more than half of the time; the next attempt has the rest of it only."""
    run_id = fleet.create("time-runs", run_timeout_seconds=0.5)
    first = fleet.hire()
    fleet.sweep()
    await until(lambda: GATES["own"].reached)
    await _pass(0.3)
    await fleet.bury(first)
    assert fleet.record(run_id)["running_seconds"] > 0.29
    fleet.hire()
    run = await fleet.until_ended(run_id)
    assert run["cancelled_by"] == "timeout"
    assert run["running_seconds"] < 0.75, "the second attempt began with all of the time"


async def test_the_wait_of_a_lost_attempt_does_not_count(fleet: Fleet) -> None:
    run_id = fleet.create("time-waits", run_timeout_seconds=0.4)
    first = fleet.hire()
    fleet.sweep()
    await until(lambda: GATES["child"].reached)
    await _pass(0.5)
    await fleet.bury(first)
    assert fleet.record(run_id)["running_seconds"] == 0.0
    GATES["child"].event.set()
    fleet.hire()
    assert (await fleet.until_ended(run_id))["status"] == "completed"


@pytest.mark.parametrize(("runs_on", "counts"), [(True, True), (False, False)])
async def test_a_parked_run_runs_on_while_a_turn_of_it_is_under_way(
    database: Database, runs_on: bool, counts: bool
) -> None:
    async with open_fleet(database) as fleet:
        run_id = fleet.create("time-agent", kind="agent")
        fleet.do(claim_run(run_id, "a", **HERE))
        fleet.do(schedule_turn(run_id, 1, "$turn:1", position=0, input_text="{}", ring_again=5.0))
        assert fleet.do(park_run(run_id, 1, seen_wakes=0, spent_seconds=2.0, runs_on=runs_on))
        turn = TurnClaim(*fleet.do(claim_turn(run_id, "$turn:1", "b", **HERE))[0])
        await _pass(0.3)
        fleet.do(complete_turn(turn, "b", Outcome(StepStatus.COMPLETED), root_id=run_id, ring_again=5.0))
        run = fleet.record(run_id)
    assert run["status"] == "queued"
    assert (run["running_seconds"] > 2.29) is counts
    assert run["claimed_at"] is None


@pytest.mark.parametrize(
    ("runs_on", "limit", "status"), [(True, 2.1, "queued"), (True, 60, "waiting"), (False, 2.1, "waiting")]
)
async def test_a_parked_run_is_woken_when_a_turn_has_used_its_time_up(
    database: Database, runs_on: bool, limit: float, status: str
) -> None:
    async with open_fleet(database) as fleet:
        run_id = fleet.create("time-agent", kind="agent", run_timeout_seconds=limit)
        fleet.do(claim_run(run_id, "a", **HERE))
        fleet.do(schedule_turn(run_id, 1, "$turn:1", position=0, input_text="{}", ring_again=5.0))
        assert fleet.do(park_run(run_id, 1, seen_wakes=0, spent_seconds=2.0, runs_on=runs_on))
        await _pass(0.2)
        fleet.do(wake_overdue())
        assert fleet.record(run_id)["status"] == status
