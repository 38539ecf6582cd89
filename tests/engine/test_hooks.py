"""Hooks of workflows: they see and change what goes in and comes out, once."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from fleet import Fleet
from pydantic import BaseModel

from polos import HookAction, HookContext, HookResult, WorkflowContext, hook, workflow
from polos.journal.steps import READ_STEPS

calls: Counter[tuple[str, str]] = Counter()


class Order(BaseModel):
    item: str
    amount: int = 1


def count(ctx: WorkflowContext, name: str) -> None:
    calls[ctx.execution_id, name] += 1


@hook
async def doubles(ctx: WorkflowContext, seen: HookContext) -> HookResult:
    count(ctx, "doubles")
    return HookResult.continue_with(modified_payload={"amount": seen.current_payload.amount * 2})


@hook()
def refuses(ctx: WorkflowContext, seen: HookContext) -> HookResult:
    count(ctx, "refuses")
    if seen.current_payload.amount > 5:
        return HookResult.fail(f"{seen.current_payload.amount} are too many")
    seen.current_payload.item = "changed in place"
    return HookResult.continue_with()


def stamps(ctx: WorkflowContext, seen: HookContext) -> HookResult:
    count(ctx, "stamps")
    assert seen.current_payload.item == "tea"
    return HookResult.continue_with(modified_output={"item": f"{seen.current_output.item}, stamped"})


@workflow(id="hooks-order", on_start=[doubles, refuses], on_end=stamps)
async def order(ctx: WorkflowContext, payload: Order) -> Order:
    assert isinstance(payload, Order)
    count(ctx, "body")
    await ctx.step.run("reserve", lambda: None)
    return payload


async def test_hooks_see_what_those_before_them_changed(fleet: Fleet) -> None:
    """Models stay models, and changing a copy in place changes nothing."""
    fleet.hire()
    run_id = fleet.create("hooks-order", '{"item": "tea", "amount": 2}')
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == {"item": "tea, stamped", "amount": 4}
    names = [row[0] for row in fleet.read(READ_STEPS, run=run_id)]
    assert names == ["$on_start.doubles.0", "$on_start.refuses.1", "reserve", "$on_end.stamps.0"]


async def test_a_hook_that_refuses_fails_the_run_without_another_attempt(fleet: Fleet) -> None:
    fleet.hire()
    run_id = fleet.create("hooks-order", '{"item": "tea", "amount": 3}')
    run = await fleet.until_ended(run_id)
    assert (run["status"], run["error"], run["attempt"]) == ("failed", "6 are too many", 1)
    assert not calls[run_id, "body"]
    assert not calls[run_id, "stamps"]


@pytest.mark.parametrize("commits", [2, 3, 4, 5])
async def test_a_replay_runs_no_recorded_hook_again(fleet: Fleet, commits: int) -> None:
    mortal = fleet.hire(dies_at=commits, commits_last=True)
    run_id = fleet.create("hooks-order", '{"item": "tea"}')
    fleet.sweep()
    await mortal.backend.died.wait()
    await fleet.bury(mortal)
    fleet.hire()
    run = await fleet.until_ended(run_id)
    assert json.loads(run["output"]) == {"item": "tea, stamped", "amount": 2}
    assert {name: calls[run_id, name] for name in ("doubles", "refuses", "stamps")} == {
        "doubles": 1,
        "refuses": 1,
        "stamps": 1,
    }


def forgets(ctx: WorkflowContext, seen: HookContext) -> None:
    return None


def spoils(ctx: WorkflowContext, seen: HookContext) -> HookResult:
    return HookResult.continue_with(modified_payload={"amount": "many"})


@workflow(id="hooks-forgets", on_start=forgets)
async def forgetting(ctx: WorkflowContext, payload: Order) -> None: ...


@workflow(id="hooks-spoils", on_start=spoils)
async def spoiling(ctx: WorkflowContext, payload: Order) -> None: ...


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hooks-forgets", "Hook 'on_start.forgets.0' must return a HookResult"),
        ("hooks-spoils", "Hook 'on_start.spoils.0' changed the payload to one of no use"),
    ],
)
async def test_what_a_hook_does_wrong_is_named(fleet: Fleet, name: str, said: str) -> None:
    fleet.hire()
    run = await fleet.until_ended(fleet.create(name, '{"item": "tea"}'))
    assert run["status"] == "failed"
    assert said in run["error"]


def replaces(ctx: WorkflowContext, seen: HookContext) -> HookResult:
    return HookResult.continue_with(modified_output=[seen.current_output])


@workflow(id="hooks-plain", on_end=[replaces, replaces])
async def plain(ctx: WorkflowContext) -> str:
    return "plain"


async def test_an_output_that_is_no_dict_is_replaced(fleet: Fleet) -> None:
    fleet.hire()
    run = await fleet.until_ended(fleet.create("hooks-plain"))
    assert json.loads(run["output"]) == [["plain"]]


def test_an_action_equals_its_word() -> None:
    result = HookResult.from_dict(HookResult.fail("no").to_dict())
    assert result.action is HookAction.FAIL
    assert result.action == "fail"


def test_a_hook_takes_two_arguments() -> None:
    with pytest.raises(TypeError, match="must take \\(ctx, hook_context\\)"):
        hook(lambda ctx: None)
