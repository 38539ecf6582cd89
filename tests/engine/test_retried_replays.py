"""A retried run whose workers die, wherever they do, comes to the same end; what it took back runs again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fleet import Fleet, until
from fleet import fleet as open_fleet

from polos import StepExecutionError, WorkflowContext, workflow
from polos.journal.database import Database
from polos.journal.queues import Limits, ensure_queue
from polos.retrying import retrying

pytestmark = pytest.mark.timeout(120)
broken: set[str] = set()
calls: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    broken.clear()
    calls.clear()


def call(name: str) -> str:
    calls.append(name)
    if name in broken:
        raise ValueError(f"{name} is broken")
    return name


async def step(ctx: WorkflowContext, name: str) -> Any:
    return await ctx.step.run(name, call, name, max_retries=0)


@workflow(id="retried-child")
async def child(ctx: WorkflowContext) -> str:
    await step(ctx, "first of child")
    return str(await step(ctx, "bad of child"))


@workflow(id="retried-parent")
async def parent(ctx: WorkflowContext) -> list[str]:
    try:
        await step(ctx, "handled")
    except StepExecutionError:
        await step(ctx, "instead")
    together = await asyncio.gather(
        step(ctx, "good"), step(ctx, "bad"), ctx.step.invoke_and_wait("child", child)
    )
    return [*map(str, together), str(await step(ctx, "last"))]


async def failed(fleet: Fleet) -> str:
    """Return a run that has failed, in a step and in a child at once."""
    broken.update({"handled", "bad", "bad of child"})
    worker = fleet.hire()
    run_id = fleet.create("retried-parent")
    fleet.sweep()
    run = await fleet.until_ended(run_id)
    assert run["status"] == "failed"
    await until(lambda: not worker.tasks)
    await fleet.bury(worker)
    broken.discard("bad")
    broken.discard("bad of child")
    calls.clear()
    return run_id


@pytest.mark.parametrize("commits_last", [False, True])
@pytest.mark.parametrize("dies_at", range(1, 9))
async def test_it_comes_to_its_end_wherever_a_worker_dies(
    sqlite: Database, dies_at: int, commits_last: bool
) -> None:
    async with open_fleet(sqlite) as fleet:
        run_id = await failed(fleet)
        assert fleet.do(retrying(fleet.record(run_id), ring_again=0.0))
        doomed = fleet.hire(dies_at=dies_at, commits_last=commits_last)

        def is_over() -> bool:
            fleet.sweep()  # children that go on are rung by sweepers
            return doomed.backend.died.is_set() or fleet.record(run_id)["status"] == "completed"

        await until(is_over)
        await fleet.bury(doomed)
        fleet.hire()
        run = await fleet.until_ended(run_id)
        assert run["output"] == '["good","bad","bad of child","last"]'
        assert "handled" not in calls
        assert {"good", "instead"}.isdisjoint(calls)


async def test_it_is_retried_once_however_often_that_is_asked(database: Database) -> None:
    async with open_fleet(database) as fleet:
        run_id = await failed(fleet)
        unit = retrying(fleet.record(run_id), ring_again=0.0)
        assert fleet.do(unit)
        assert not fleet.do(unit)
        assert fleet.record(run_id)["retried_seq"] == fleet.record(run_id)["seq"]


async def test_in_a_queue_with_limits_it_wants_a_slot_first(database: Database) -> None:
    async with open_fleet(database) as fleet:
        run_id = await failed(fleet)
        fleet.do(ensure_queue("default", "default", "retried-parent", Limits(1)))
        assert fleet.do(retrying(fleet.record(run_id), ring_again=0.0)) == [(run_id, None)]
        run = fleet.record(run_id)
    assert (run["status"], run["slot"], run["ring_at"]) == ("queued", "wanted", None)
