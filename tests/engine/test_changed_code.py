"""Code that changes under a live run: it stops with the steps' names, and goes on once the code is mended."""

from __future__ import annotations

import asyncio
import random

import pytest
from fleet import Fleet, until
from fleet import fleet as open_fleet

from polos import WorkflowContext, workflow
from polos.journal.database import Database
from polos.journal.runs import unblock_run

pytestmark = pytest.mark.timeout(120)
program: list[str] = []
calls: list[str] = []
gates: dict[str, asyncio.Event] = {}
RECORDED = ["a", "b", "c"]


@workflow(id="changed-code")
async def changing(ctx: WorkflowContext) -> list[str]:
    done = []
    for name in list(program):
        if name == "stop":
            calls.append("stop")
            await gates["stop"].wait()
            continue
        done.append(await ctx.step.run(name, lambda name=name: calls.append(name) or name))
    return done


@pytest.fixture(autouse=True)
def _fresh() -> None:
    program[:] = [*RECORDED, "stop", "d"]
    calls.clear()
    gates["stop"] = asyncio.Event()


async def recorded(fleet: Fleet) -> str:
    """Return a run that has recorded a, b and c, and whose worker is dead."""
    worker = fleet.hire()
    run_id = fleet.create("changed-code")
    fleet.sweep()
    await until(lambda: "stop" in calls)
    await fleet.bury(worker)
    gates["stop"].set()
    return run_id


CHANGES: dict[str, tuple[list[str], list[str]]] = {
    "renamed": (["a", "other", "c", "d"], ["'b'", "'other'"]),
    "reordered": (["a", "c", "b", "d"], ["'b'", "'c'"]),
    "inserted": (["a", "new", "b", "c", "d"], ["'b'", "'c'", "'new'"]),
    "removed": (["a", "c", "d"], ["'b'", "'c'"]),
    "all gone": ([], ["'a'", "'b'", "'c'"]),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_changed_program_stops_the_run_and_the_old_one_goes_on(
    database: Database, change: str
) -> None:
    async with open_fleet(database) as fleet:
        run_id = await recorded(fleet)
        program[:], named = CHANGES[change]
        fleet.hire()
        run = await fleet.until_ended(run_id)
        assert run["status"] == "blocked"
        assert all(name in run["error"] for name in named), run["error"]
        assert run["finished_at"] is None

        program[:] = [*RECORDED, "d"]
        assert fleet.do(unblock_run(run_id))
        fleet.sweep()
        run = await fleet.until_ended(run_id)
        assert (run["status"], run["output"]) == ("completed", '["a","b","c","d"]')
        assert sorted(name for name in calls if name != "stop") == ["a", "b", "c", "d"]


async def test_what_is_added_behind_the_recorded_steps_is_no_deviation(fleet: Fleet) -> None:
    run_id = await recorded(fleet)
    program[:] = [*RECORDED, "new", "d"]
    fleet.hire()
    assert (await fleet.until_ended(run_id))["output"] == '["a","b","c","new","d"]'


async def test_a_key_that_is_used_twice_fails_with_its_name(fleet: Fleet) -> None:
    program[:] = ["a", "a"]
    fleet.hire()
    run_id = fleet.create("changed-code")
    fleet.sweep()
    run = await fleet.until_ended(run_id)
    assert run["status"] == "failed"
    assert "Step key 'a' was used twice" in run["error"]


@workflow(id="changed-random")
async def random_branch(ctx: WorkflowContext) -> str:
    """Take another way than the last time, as code does that rolls dice of its own."""
    ways = [way for way in ("left", "right") if way not in calls]
    way = random.choice(ways)
    await ctx.step.run(way, lambda: calls.append(way))
    calls.append("stop")
    await gates["stop"].wait()
    return way


async def test_a_random_branch_stops_the_run_with_both_names(fleet: Fleet) -> None:
    first = fleet.hire()
    run_id = fleet.create("changed-random")
    fleet.sweep()
    await until(lambda: "stop" in calls)
    await fleet.bury(first)
    fleet.hire()
    run = await fleet.until_ended(run_id)
    assert run["status"] == "blocked"
    assert "'left'" in run["error"]
    assert "'right'" in run["error"]
