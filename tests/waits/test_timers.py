"""Timers: they wait as long as they say, in memory or parked, and are recorded."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from engine.fleet import Fleet, until

from polos import StepExecutionError, WorkflowContext, workflow
from polos.clock import SystemClock
from polos.journal.steps import READ_STEPS, step_from


def steps_of(fleet: Fleet, run_id: str) -> dict[str, Any]:
    return {row[0]: step_from(row) for row in fleet.read(READ_STEPS, run=run_id)}


@workflow(id="timers-sleeper")
async def sleeper(ctx: WorkflowContext, seconds: Any) -> float:
    began = time.monotonic()
    result: Any = await ctx.step.wait_for("nap", seconds=seconds)
    assert result is None
    return time.monotonic() - began


async def test_a_short_wait_stays_in_memory(fleet: Fleet) -> None:
    """The run waits as long as it says, and only one attempt is needed."""
    run = await fleet.until_ended(fleet.create("timers-sleeper", "0.04"))
    assert run["status"] == "completed", run["error"]
    assert run["attempt"] == 1
    assert float(run["output"]) >= 0.04


async def test_a_long_wait_is_parked_at_once_and_found_when_due(fleet: Fleet) -> None:
    run_id = fleet.create("timers-sleeper", "0.4")
    began = time.time()
    fleet.sweep()
    await until(lambda: fleet.record(run_id)["status"] == "waiting")
    await until(lambda: not fleet.workers[0].runtime.executions)
    run = await fleet.until_ended(run_id)
    assert run["status"] == "completed", run["error"]
    assert run["attempt"] == 2
    assert run["finished_at"] - began >= 0.39


async def test_the_record_says_when_the_wait_was_over(fleet: Fleet) -> None:
    run_id = fleet.create("timers-sleeper", "0.04")
    run = await fleet.until_ended(run_id)
    step = steps_of(fleet, run_id)["nap"]
    ended = datetime.fromisoformat(json.loads(step.output)["wait_until"]).timestamp()
    assert step.kind == "timer"
    assert run["started_at"] < ended <= run["finished_at"]


@workflow(id="timers-units")
async def all_units(ctx: WorkflowContext, given: dict[str, Any]) -> str:
    values = {unit: float(value) if isinstance(value, str) else value for unit, value in given.items()}
    try:
        await ctx.step.wait_for("nap", **values)
    except StepExecutionError as error:
        return str(error)
    return "waited"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"weeks": 1e-8, "days": 1e-8, "hours": 1e-7, "minutes": 1e-5, "seconds": 0.001}, "waited"),
        ({"seconds": 0}, "Wait duration must be positive"),
        ({}, "Wait duration must be positive"),
        ({"hours": 1, "minutes": -61}, "Wait duration must be positive"),
        ({"seconds": "nan"}, "Wait duration must be positive"),
        ({"seconds": "inf"}, "Wait duration must be at most 100 years, not inf seconds"),
        ({"weeks": 10**30}, "Wait duration must be at most 100 years, not 6.048e+35 seconds"),
    ],
)
async def test_durations_are_summed_and_of_no_use_if_not_positive(
    fleet: Fleet, given: dict[str, Any], said: str
) -> None:
    run_id = fleet.create("timers-units", json.dumps(given))
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == said
    assert steps_of(fleet, run_id)["nap"].error == (None if said == "waited" else said)


@workflow(id="timers-wrong")
async def wrong(ctx: WorkflowContext, given: Any) -> None:
    await ctx.step.wait_for("nap", seconds=given)


@pytest.mark.parametrize("given", ["true", '"5"', "[]"])
async def test_a_duration_is_a_number(fleet: Fleet, given: str) -> None:
    fleet.settings = fleet.workers[0].runtime.settings = fleet.settings.with_values(max_run_retries=0)
    run = await fleet.until_ended(fleet.create("timers-wrong", given))
    assert run["status"] == "failed"
    assert "give a number" in run["error"]


@workflow(id="timers-until")
async def until_then(ctx: WorkflowContext, moment: Any) -> str:
    naive = datetime.fromtimestamp(moment, UTC).replace(tzinfo=None)
    await ctx.step.wait_until("then", naive)
    return "reached"


async def test_a_moment_without_time_zone_is_utc(fleet: Fleet) -> None:
    moment = time.time() + 0.3
    run = await fleet.until_ended(fleet.create("timers-until", str(moment)))
    assert run["status"] == "completed", run["error"]
    assert run["finished_at"] >= moment


async def test_a_moment_in_the_past_is_a_recorded_failure(fleet: Fleet) -> None:
    run_id = fleet.create("timers-until", str(time.time() - 5))
    run = await fleet.until_ended(run_id)
    assert run["status"] == "failed"
    assert "is in the past" in run["error"]
    assert steps_of(fleet, run_id)["then"].status == "failed"


async def test_a_moment_that_passed_while_nobody_worked_is_reached(fleet: Fleet) -> None:
    """Only the first execution can be too late."""
    run_id = fleet.create("timers-until", str(time.time() + 0.2))
    fleet.sweep()
    await until(lambda: "then" in steps_of(fleet, run_id))
    await fleet.bury(fleet.workers[0])
    due = time.time() + 0.25
    await until(lambda: time.time() > due)
    fleet.hire()
    run = await fleet.until_ended(run_id)
    assert run["status"] == "completed", run["error"]


@workflow(id="timers-many")
async def many(ctx: WorkflowContext) -> list[int]:
    """Wait for several at once, the shortest last."""
    order: list[int] = []

    async def nap(number: int) -> None:
        await ctx.step.wait_for(f"nap {number}", seconds=0.03 * (4 - number))
        order.append(number)

    await asyncio.gather(*(nap(number) for number in range(4)))
    await ctx.step.wait_for("pause", seconds=0.2)
    return order


async def test_waits_at_once_end_in_the_order_of_their_times(fleet: Fleet) -> None:
    """Also for the replay after the last one."""
    run = await fleet.until_ended(fleet.create("timers-many"))
    assert json.loads(run["output"]) == [3, 2, 1, 0]
    assert run["attempt"] > 1


@workflow(id="timers-month")
async def month(ctx: WorkflowContext) -> str:
    await ctx.step.wait_until("later", datetime.now(UTC) + timedelta(days=30))
    return "later"


async def test_many_sleeping_runs_hold_nothing_of_a_worker(fleet: Fleet) -> None:
    runs = [fleet.create("timers-month") for _ in range(50)]
    fleet.sweep()
    await until(lambda: all(fleet.record(run_id)["status"] == "waiting" for run_id in runs))
    await until(lambda: not fleet.workers[0].runtime.executions and not fleet.workers[0].tasks)


class Ahead(SystemClock):
    """The clock of a worker that is two hours ahead of its database."""

    def time(self) -> float:
        return time.time() + 7200


async def test_the_past_is_the_databases(fleet: Fleet) -> None:
    """A moment that is to come is waited for, whatever the worker's own clock says."""
    fleet.workers[0].runtime.clock = Ahead()
    run_id = fleet.create("timers-until", str(time.time() + 3600))
    fleet.sweep()
    await until(lambda: fleet.record(run_id)["status"] in {"waiting", "failed"})
    assert fleet.record(run_id)["status"] == "waiting", fleet.record(run_id)["error"]
