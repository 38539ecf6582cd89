"""Answers: one that comes before the question is kept for it, a second one changes nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from engine.fleet import Fleet, until

from polos import WorkflowContext, workflow
from polos.journal.steps import READ_STEPS
from polos.waits import Answered, answer_wait


class Sync:
    """The journal of a client."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def read(self, statement: Any, params: Any) -> Any:
        return self._fleet.read(statement, **params)

    def commit(self, units: Any) -> Any:
        return [self._fleet.do(unit) for unit in units]


def answer(fleet: Fleet, root: str, key: str, data: Any, **options: Any) -> Answered | None:
    run = fleet.record(root)
    given = answer_wait(Sync(fleet), run, key, data, max_value_bytes=1000, ring_again=0.0, **options)
    if given is not None and given.woken is not None:
        answered, woken = given.woken
        fleet.publish(f"worker:{woken.owner}", answered)
    return given


def step_names(fleet: Fleet, run_id: str) -> list[str]:
    return [row[0] for row in fleet.read(READ_STEPS, run=run_id)]


@workflow(id="answers-asker")
async def asker(ctx: WorkflowContext, keys: Any) -> list[Any]:
    return [(await ctx.step.suspend(key, {"ask": key}))["data"] for key in keys]


async def test_an_answer_before_the_question_is_given_to_it(fleet: Fleet) -> None:
    run_id = fleet.create("answers-asker", '["approve"]')
    kept = answer(fleet, run_id, "approve", {"ok": 1})
    assert kept is not None
    assert kept.woken is None
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == [{"ok": 1}]


async def test_of_two_answers_before_the_question_the_first_counts(fleet: Fleet) -> None:
    run_id = fleet.create("answers-asker", '["approve"]')
    assert answer(fleet, run_id, "approve", {"ok": 1})
    assert answer(fleet, run_id, "approve", {"ok": 2}) is None
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == [{"ok": 1}]


async def test_a_late_answer_is_not_kept(fleet: Fleet) -> None:
    run_id = fleet.create("answers-asker", '["approve", "sign"]')
    fleet.sweep()
    await until(lambda: "approve" in step_names(fleet, run_id))
    assert answer(fleet, run_id, "approve", {"ok": 1})
    assert answer(fleet, run_id, "approve", {"ok": 2}) is None
    await until(lambda: "sign" in step_names(fleet, run_id))
    assert answer(fleet, run_id, "approve", {"ok": 3}) is None
    assert answer(fleet, run_id, "sign", {"ok": 4})
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == [{"ok": 1}, {"ok": 4}]


async def test_an_answer_for_a_run_of_its_own_is_not_kept(fleet: Fleet) -> None:
    """It is for that run or for none."""
    run_id = fleet.create("answers-asker", '["approve"]')
    assert answer(fleet, run_id, "approve", {"ok": 1}, run_id="some other") is None


async def test_an_ended_tree_keeps_nothing(fleet: Fleet) -> None:
    run_id = fleet.create("answers-asker", "[]")
    await fleet.until_ended(run_id)
    assert answer(fleet, run_id, "approve", {"ok": 1}) is None


gates: dict[str, asyncio.Event] = {}


@workflow(id="answers-late-asker")
async def late_asker(ctx: WorkflowContext) -> Any:
    await gates[ctx.root_execution_id].wait()
    return (await ctx.step.suspend("approve", {}))["data"]


@workflow(id="answers-leaver")
async def leaver(ctx: WorkflowContext) -> str:
    gates[ctx.execution_id] = asyncio.Event()
    return (await ctx.step.invoke("left behind", late_asker)).id


async def test_a_tree_keeps_an_answer_while_any_of_its_runs_may_ask(fleet: Fleet) -> None:
    """Also when the root has ended: what it has started and left behind goes on."""
    root = await fleet.until_ended(fleet.create("answers-leaver"))
    assert answer(fleet, root["id"], "approve", {"ok": 1})
    gates[root["id"]].set()
    run = await fleet.until_ended(json.loads(root["output"]))
    assert json.loads(run["output"]) == {"ok": 1}


@workflow(id="answers-parent")
async def parent(ctx: WorkflowContext) -> list[Any]:
    first = await ctx.step.invoke_and_wait("first", "answers-asker", ["approve"])
    second = await ctx.step.invoke_and_wait("second", "answers-asker", ["approve"])
    return [first, second]


async def test_a_kept_answer_goes_to_the_first_that_asks_only(fleet: Fleet) -> None:
    run_id = fleet.create("answers-parent")
    assert answer(fleet, run_id, "approve", {"ok": 1})
    fleet.sweep()
    await until(lambda: "second" in step_names(fleet, run_id))
    await until(lambda: answer(fleet, run_id, "approve", {"ok": 2}))
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == [[{"ok": 1}], [{"ok": 2}]]


async def test_a_question_runs_out_of_time(fleet: Fleet) -> None:
    run_id = fleet.create("answers-impatient")
    run = await fleet.until_ended(run_id)
    assert run["error"] == "Suspend 'approve' timed out after 0 seconds"
    assert answer(fleet, run_id, "approve", {"ok": 1}) is None


@workflow(id="answers-impatient")
async def impatient(ctx: WorkflowContext) -> None:
    await ctx.step.suspend("approve", {}, timeout=0.1)


@workflow(id="answers-clerk")
async def clerk(ctx: WorkflowContext, options: dict[str, Any]) -> str:
    await ctx.step.resume("answer", options["key"], options["run"], "answers-asker", {"by": "clerk"})
    return "answered"


@pytest.mark.parametrize("waits", [True, False], ids=["that waits", "that will wait"])
async def test_a_run_answers_another(fleet: Fleet, waits: bool) -> None:
    run_id = fleet.create("answers-asker", '["approve"]')
    if waits:
        fleet.sweep()
        await until(lambda: "approve" in step_names(fleet, run_id))
    clerk_id = fleet.create("answers-clerk", json.dumps({"key": "approve", "run": run_id}))
    fleet.workers[0].serve(clerk_id)
    assert (await fleet.until_ended(clerk_id))["status"] == "completed"
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == [{"by": "clerk"}]


async def test_a_step_that_answers_a_run_that_is_none_fails(fleet: Fleet) -> None:
    clerk_id = fleet.create("answers-clerk", json.dumps({"key": "approve", "run": "nobody"}))
    run = await fleet.until_ended(clerk_id)
    assert run["error"] == "resume: there is no run 'nobody' in project 'default'"
