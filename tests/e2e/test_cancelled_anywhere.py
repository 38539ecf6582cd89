"""F25: a run is cancelled while its worker is at a fault point; nothing of its tree goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from backends import on_both
from faults.moments import LATE, MOMENTS, Moment
from gates import until
from models.servers import ModelServer
from pydantic import BaseModel
from sqlalchemy import bindparam, select

from polos import Agent, Polos, WorkflowContext, faultpoints, tool, workflow
from polos.journal.runs import RUNS, R, run_record
from polos.journal.statements import Statement
from polos.journal.steps import STEPS, S, step_details

pytestmark = [pytest.mark.timeout(120), on_both]
CANCELLED_WITHIN_SECONDS = 5.0
READ_RUNS = Statement(select(*RUNS.c).where(R.root_id == bindparam("root")).order_by(R.id))
READ_STEPS = Statement(
    select(*STEPS.c)
    .where(S.run_id.in_(select(R.id).where(R.root_id == bindparam("root"))))
    .order_by(S.run_id, S.name)
)
TOKENS = {f"{kind}_tokens" for kind in ("input", "output", "cached", "total")}
USAGE = {"agent", "calls", "cost", "model", "uncounted_calls", "unpriced_calls", *TOKENS}
effects: list[str] = []  # of runs, by their roots


def effect(run_id: str) -> str:
    effects.append(run_id)
    return "done"


class Amount(BaseModel):
    euros: int


@workflow(id="plain-cancelled")
async def plain(ctx: WorkflowContext) -> None:
    for name in ("first", "second", "third"):
        await ctx.step.run(name, effect, ctx.root_execution_id)


@workflow(id="inner-cancelled")
async def inner(ctx: WorkflowContext) -> None:
    await ctx.step.run("inside", effect, ctx.root_execution_id)


@workflow(id="outer-cancelled")
async def child(ctx: WorkflowContext) -> None:
    await ctx.step.run("before", effect, ctx.root_execution_id)
    await ctx.step.invoke_and_wait("inner", inner)
    await ctx.step.run("after", effect, ctx.root_execution_id)


@workflow(id="waits-cancelled")
async def waits(ctx: WorkflowContext) -> None:
    await ctx.step.publish_event("said", topic=f"cancelled/{ctx.execution_id}", data={})
    await ctx.step.wait_for_event("heard", topic=f"cancelled/{ctx.execution_id}", since=0)
    await ctx.step.wait_for("slept", seconds=0.01)
    await ctx.step.run("after", effect, ctx.root_execution_id)
    await ctx.step.suspend("asked", {}, timeout=60)


@tool(id="charge_cancelled", description="Charge a card")
async def charge(ctx: WorkflowContext, amount: Amount) -> str:
    return effect(ctx.root_execution_id)


clerk = Agent(id="agent-cancelled", provider="openai", model="gpt-4o", tools=[charge])
PROGRAMS = {"plain": plain, "child": child, "waits": waits, "agent": clerk}


assert {moment.point for moment in MOMENTS} == set(faultpoints.POINTS) - {"in_upgrade"}


class Turnstile:
    """In place of a fault: holds the worker's loop where it passes, until it is opened."""

    def __init__(self, moment: Moment) -> None:
        self._moment = moment
        self._left = moment.nth
        self._open = threading.Event()
        self.reached = threading.Event()

    def passed(self, point: str, label: str) -> None:
        if point == self._moment.point and self._moment.match in label and self._left > 0:
            self._left -= 1
            if self._left == 0:
                self.reached.set()
                assert self._open.wait(30), "nobody opened the turnstile"

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def turnstile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Turnstile]:
    made = Turnstile(request.node.callspec.params["moment"])
    monkeypatch.setattr(faultpoints, "_fault", made)
    yield made
    made.open()


@dataclass(frozen=True)
class Tree:
    """All rows of a run's tree."""

    runs: list[dict[str, Any]]
    steps: list[dict[str, Any]]


async def tree_of(polos: Polos, root: str) -> Tree:
    backend = await polos._transport.backend()
    runs = await asyncio.to_thread(backend._read, READ_RUNS, {"root": root})
    steps = await asyncio.to_thread(backend._read, READ_STEPS, {"root": root})
    found = [run_record(row) for row in runs], [step_details(row) for row in steps]
    return Tree(*([_without_usage(row) for row in rows] for rows in found))


def _without_usage(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without what a call has used that was cancelled: it is counted when it is known."""
    return {name: value for name, value in row.items() if name not in USAGE}


async def started(polos: Polos, model: ModelServer, moment: Moment, turnstile: Turnstile) -> str:
    """Start a run and return its id once the worker stands at the moment."""
    if moment.program == "agent":
        model.calls(("charge_cancelled", {"euros": 42}))
        model.says("It is charged")
    program: Any = PROGRAMS[moment.program]
    payload = {"input": "Charge it", "streaming": False} if moment.program == "agent" else None
    handle = await polos.invoke(program.id, payload)
    await until(turnstile.reached.is_set, seconds=30)
    return str(handle.id)


settled: dict[str, list[tuple[str, Tree, int]]] = {}  # by database: root, all rows, how many effects


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
async def test_a_run_that_is_cancelled_at_a_fault_point_goes_no_further(
    polos: Polos, model: ModelServer, turnstile: Turnstile, moment: Moment, database_url: str | None
) -> None:
    root = await started(polos, model, moment, turnstile)
    before = await tree_of(polos, root)

    assert await polos.cancel_execution(root) is True
    cancelled, done = await tree_of(polos, root), effects.count(root)
    turnstile.open()
    assert (await polos.wait(root, timeout_seconds=30))["status"] == "cancelled"

    [cancelled_at] = [run["finished_at"] for run in cancelled.runs if run["id"] == root]
    assert [run["id"] for run in cancelled.runs] == [run["id"] for run in before.runs]
    for was, run in zip(before.runs, cancelled.runs, strict=True):
        if was["finished_at"] is None:
            assert run["status"] == "cancelled"
            assert run["finished_at"] - cancelled_at < CANCELLED_WITHIN_SECONDS
    settled.setdefault(database_url or "sqlite", []).append((root, cancelled, done))


@pytest.mark.parametrize("moment", LATE, ids=str)
async def test_a_run_that_has_ended_is_not_cancelled(
    polos: Polos, model: ModelServer, turnstile: Turnstile, moment: Moment
) -> None:
    root = await started(polos, model, moment, turnstile)
    assert await polos.cancel_execution(root) is False
    turnstile.open()
    assert (await polos.wait(root, timeout_seconds=30))["status"] == "completed"
    assert effects.count(root) == 3


async def test_no_cancelled_run_has_gone_on_meanwhile(polos: Polos, database_url: str | None) -> None:
    """Its worker was let go long ago: no row of any tree has changed since the cancel was committed.

    One step at most began all the same, in the moment before its worker heard of it; it is not recorded.
    """
    played = settled.pop(database_url or "sqlite", [])
    for root, then, done in played:
        assert await tree_of(polos, root) == then
        assert effects.count(root) <= done + 1
    assert played
