"""Limits and order in fleets that execute: nobody is let in too many, nobody waits for ever."""

from __future__ import annotations

import asyncio
import time

import pytest
from doormen import GuardedFleet, Ledger, guarded_fleet

from polos import WorkflowContext, workflow
from polos.journal.database import Database

ledger = Ledger()


@pytest.fixture(autouse=True)
def fresh_ledger() -> None:
    ledger.__init__()


@workflow(id="guarded")
async def guarded(ctx: WorkflowContext, payload: dict) -> str:
    what = payload["what"]
    ledger.enter(what)
    await asyncio.sleep(payload.get("seconds", 0.005))
    ledger.leave(what)
    return what


@workflow(id="nested")
async def nested(ctx: WorkflowContext, payload: dict) -> int:
    depth = payload["depth"]
    if depth == 0:
        return 0
    return 1 + await ctx.step.invoke_and_wait("down", nested, {"depth": depth - 1}, queue="one")


@workflow(id="fans-out")
async def fans_out(ctx: WorkflowContext, payload: dict) -> list:
    inner = {"what": "inner", "seconds": 0.002}
    asked = (
        ctx.step.invoke_and_wait(f"c{place}", guarded, inner, queue="few") for place in range(payload["n"])
    )
    return list(await asyncio.gather(*asked))


def fleet_of(database: Database):
    return guarded_fleet(database, "guarded", "nested", "fans-out", "doomed")


async def all_ended(fleet: GuardedFleet, runs: list[str]) -> None:
    for run in runs:
        record = await fleet.until_ended(run)
        assert record["status"] == "completed", record["error"]


async def test_a_limit_holds_for_a_fleet(database: Database) -> None:
    async with fleet_of(database) as fleet:
        fleet.limit("few", 3)
        for _ in range(3):
            fleet.hire(slots=8)
        await all_ended(fleet, [fleet.submit("guarded", "few", '{"what": "few"}') for _ in range(60)])
    assert ledger.most["few"] == 3


async def test_a_limit_of_one_for_each_key(database: Database) -> None:
    async with fleet_of(database) as fleet:
        fleet.limit("users", 1)
        for _ in range(2):
            fleet.hire(slots=8)
        runs = [
            fleet.submit("guarded", "users", f'{{"what": "{user}"}}', concurrency_key=user)
            for _ in range(6)
            for user in ("ann", "bob", "eve")
        ]
        await all_ended(fleet, runs)
    assert ledger.most == {"ann": 1, "bob": 1, "eve": 1}


async def test_a_run_that_starts_runs_of_its_own_queue_of_one_does_not_wait_for_itself(
    database: Database,
) -> None:
    async with fleet_of(database) as fleet:
        fleet.limit("one", 1)
        fleet.hire(slots=2)
        runs = [fleet.submit("nested", "one", '{"depth": 3}') for _ in range(3)]
        await all_ended(fleet, runs)
        assert fleet.record(runs[0])["output"] == "3"


async def test_parents_and_children_share_a_limited_queue(database: Database) -> None:
    async with fleet_of(database) as fleet:
        fleet.limit("few", 2)
        for _ in range(2):
            fleet.hire(slots=2)
        runs = [fleet.submit("fans-out", "few", '{"n": 5}') for _ in range(4)]
        await all_ended(fleet, runs)
    assert ledger.most["inner"] <= 2


async def test_a_holder_that_is_killed_again_and_again_is_never_two(database: Database) -> None:
    """F23, with engines: whoever replaces the dead has the slot of the dead."""
    async with fleet_of(database) as fleet:
        fleet.limit("solo", 1)
        fleet.settings = fleet.settings.with_values(max_crashes=1000)
        runs = [fleet.submit("doomed", "solo") for _ in range(4)]
        for _ in range(12):
            worker = fleet.hire(slots=4)
            worker.runtime.settings = fleet.settings
            seen = len(ledger.entries)
            await _until(lambda seen=seen: len(ledger.entries) > seen, fleet)
            assert sum(ledger.inside.values()) == 1
            await fleet.bury(worker)
            ledger.inside.clear()
        ledger.may_end = True
        fleet.hire(slots=4)
        await all_ended(fleet, runs)
    assert ledger.most["doomed"] == 1


@workflow(id="doomed")
async def doomed(ctx: WorkflowContext) -> None:
    ledger.enter("doomed")
    try:
        while not ledger.may_end:
            await asyncio.sleep(0.01)
    finally:
        ledger.leave("doomed")


async def _until(condition, fleet: GuardedFleet) -> None:
    async with asyncio.timeout(20):
        while not condition():
            fleet.sweep()
            await asyncio.sleep(0.005)


async def test_a_tenant_behind_anothers_backlog_starts_at_once(database: Database) -> None:
    """F22, small: thousands of A wait, ten of B start within two seconds. The long form is a benchmark."""
    async with fleet_of(database) as fleet:
        for _ in range(2):
            fleet.hire(slots=4)
        for _ in range(1500):
            fleet.submit("guarded", "tenants", '{"what": "a", "seconds": 0.01}', concurrency_key="a")
        await asyncio.sleep(0)
        began = time.monotonic()
        for _ in range(10):
            fleet.submit("guarded", "tenants", '{"what": "b", "seconds": 0.01}', concurrency_key="b")
        await _until(lambda: [what for _, what in ledger.entries].count("b") == 10, fleet)
        last = [moment for moment, what in ledger.entries if what == "b"][-1]
    assert last - began < 2.0


@pytest.mark.parametrize("window", [20])
async def test_few_doorbells_are_outstanding_whatever_the_backlog(database: Database, window: int) -> None:
    async with fleet_of(database) as fleet:
        runs = [fleet.submit("guarded", "many", '{"what": "a"}') for _ in range(300)]
        assert sum(fleet.record(run)["slot"] is None for run in runs) == window
        fleet.hire(slots=20)
        await all_ended(fleet, runs)


async def test_any_second_of_a_rate_has_no_more_starts_than_allowed(database: Database) -> None:
    """F24, with four workers whose doormen all look at once."""
    async with fleet_of(database) as fleet:
        fleet.limit("paced", rate_limit=10, rate_seconds=0.5)
        for _ in range(4):
            fleet.hire(slots=4)
        await all_ended(fleet, [fleet.submit("guarded", "paced", '{"what": "p"}') for _ in range(22)])
    moments = [moment for moment, _ in ledger.entries]
    most = max(sum(start <= other < start + 0.5 for other in moments) for start in moments)
    assert most <= 11
    assert moments[-1] - moments[0] < 5.0
