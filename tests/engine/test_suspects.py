"""Who may execute beside what has killed its worker before, and who is judged for it in the end."""

from __future__ import annotations

import asyncio

import pytest
from fleet import Fleet, until
from fleet import fleet as open_fleet
from sqlalchemy import update

from polos import WorkflowContext, workflow
from polos.engine.suspects import share_of_suspect
from polos.journal.database import Database
from polos.journal.runs import RUNS, R
from polos.journal.statements import Part, Statement, Unit

SLOTS = 9
TWO_DEATHS = Statement(update(RUNS).values(crashes=2).returning(R.id))
inside: list[str] = []
company: list[int] = []  # of a poison that began, itself included, in order
may_end: dict[str, asyncio.Event] = {}  # by what it does


@pytest.fixture(autouse=True)
def nobody_inside() -> None:
    inside.clear()
    company.clear()
    may_end.update(poison=asyncio.Event(), harmless=asyncio.Event())


@workflow(id="beside")
async def beside(ctx: WorkflowContext, payload: dict) -> str:
    what = payload["what"]
    inside.append(what)
    try:
        await may_end["poison" if what == "poison" else "harmless"].wait()
    finally:
        inside.remove(what)
    return what


@workflow(id="goes-on")
async def goes_on(ctx: WorkflowContext) -> None:
    await ctx.step.run("first", lambda: None)
    inside.append("later")
    await may_end["harmless"].wait()


def test_a_suspect_takes_one_slot_at_first_and_all_before_it_is_judged() -> None:
    assert [share_of_suspect(crashes, 3)(1000) for crashes in range(4)] == [1, 32, 1000, 1]
    assert [share_of_suspect(crashes, 3)(1) for crashes in range(4)] == [1, 1, 1, 1]
    assert share_of_suspect(1, 50)(8) == 1, "one death of fifty is no reason to make room"
    assert share_of_suspect(1, 1)(8) == 1


@pytest.mark.parametrize("poisons", [1, 2])
async def test_of_those_who_executed_together_only_the_cause_is_judged(
    database: Database, poisons: int
) -> None:
    async with open_fleet(database) as fleet:
        guilty = [fleet.create("beside", '{"what": "poison"}') for _ in range(poisons)]
        harmless = [fleet.create("beside", f'{{"what": "{n}"}}') for n in range(SLOTS - poisons)]
        worker = fleet.hire(slots=SLOTS)
        fleet.sweep()
        await until(lambda: len(inside) == SLOTS)
        may_end["harmless"].set()
        deaths = 0
        while True:
            await until(lambda: "poison" in inside or _ended(fleet, guilty))
            if _ended(fleet, guilty):
                break
            company.append(len(inside))
            await fleet.bury(worker)
            deaths += 1
            worker = fleet.hire(slots=SLOTS)
            fleet.sweep()
        assert deaths <= 3 * poisons
        assert company[0] == SLOTS
        assert max(company[1:]) <= round(SLOTS**0.5)
        assert company[-1] == 1
        for run in guilty:
            record = fleet.record(run)
            assert record["status"] == "failed"
            assert "worker_lost: 3 workers died" in record["error"]
        assert [(await fleet.until_ended(run))["status"] for run in harmless] == ["completed"] * len(harmless)


def _ended(fleet: Fleet, runs: list[str]) -> bool:
    return all(fleet.record(run)["finished_at"] is not None for run in runs)


async def test_what_has_recorded_something_since_needs_no_room_any_more(database: Database) -> None:
    async with open_fleet(database) as fleet:
        first = fleet.create("goes-on")
        fleet.do(Unit((Part(TWO_DEATHS, {}),), ()))
        worker = fleet.hire(slots=3)
        fleet.sweep()
        await until(lambda: inside == ["later"])
        assert worker.slots.free == 2
        may_end["harmless"].set()
        assert (await fleet.until_ended(first))["status"] == "completed"
