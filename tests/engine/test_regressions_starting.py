"""A worker that may have been taken for dead, such as a stopped process that wakes, begins no user code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fleet import Fleet, until

from polos import Agent, WorkflowContext, workflow
from polos.agents.turn import execute_turn
from polos.engine import coordinator
from polos.engine.runtime import NoSlot
from polos.journal.steps import READ_STEPS
from polos.models.request import ModelAnswer, ModelRequest
from polos.threads import DaemonThreads

SECONDS = 10.0


async def test_a_body_is_not_begun_before_its_worker_may_start_it(fleet: Fleet) -> None:
    """That of a tool is the side effect itself: no step holds it back."""
    did: list[str] = []

    @workflow(id="starting-charge")
    async def charge(ctx: WorkflowContext) -> None:
        did.append("charge")

    asked, allowed = asyncio.Event(), asyncio.Event()

    async def may_start() -> None:
        asked.set()
        await allowed.wait()

    worker = fleet.hire()
    worker.runtime.may_start = may_start
    run_id = fleet.create("starting-charge")
    worker.serve(run_id)
    async with asyncio.timeout(SECONDS):
        await asked.wait()
    await until(lambda: fleet.record(run_id)["status"] == "running")
    assert not did

    allowed.set()
    assert (await fleet.until_ended(run_id))["status"] == "completed"
    assert did == ["charge"]


async def test_a_sync_function_that_was_cancelled_behind_the_gate_is_not_called() -> None:
    """What a worker dropped, when it learnt that it had been declared dead, is not begun afterwards."""
    reached, opened = threading.Event(), threading.Event()
    did: list[str] = []

    def gate() -> None:
        reached.set()
        opened.wait(SECONDS)

    threads = DaemonThreads("starting", limit=1, initializer=lambda: None, gate=gate)
    dropped = threads.submit(did.append, "dropped")
    assert reached.wait(SECONDS)
    assert dropped.cancel()
    opened.set()
    threads.submit(did.append, "wanted").result(SECONDS)
    threads.shutdown()
    assert did == ["wanted"]


@pytest.mark.parametrize("asked_before", [0, 1], ids=["while it is prepared", "while it connects"])
async def test_a_turn_whose_worker_was_declared_dead_meanwhile_calls_no_model(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, asked_before: int
) -> None:
    """The worker is heard of again, under a new id, and the turn is executed by somebody else."""
    calls: list[str] = []

    async def ready(request: ModelRequest) -> None:
        """Nothing has to be loaded."""

    async def generate(request: ModelRequest, *, before_send: Callable[[], Awaitable[None]]) -> ModelAnswer:
        await before_send()
        calls.append(request.model)
        return ModelAnswer(content="paid for twice")

    monkeypatch.setattr("polos.models.call.ready", ready)
    monkeypatch.setattr("polos.models.call.generate", generate)
    Agent(id="starting-agent", provider="openai", model="m")
    worker = fleet.hire()
    asked: list[None] = []

    async def may_start() -> None:
        if len(asked) == asked_before:
            worker.runtime.worker_id = "reborn"
        asked.append(None)

    run_id = fleet.create("starting-agent", '{"input":"hello"}', kind="agent")
    worker.serve(run_id)
    await until(lambda: [row for row in fleet.read(READ_STEPS, run=run_id) if row[0] == "$turn:1"])
    worker.runtime.may_start = may_start
    assert await execute_turn(worker.runtime, run_id, "$turn:1", NoSlot()) == "taken over"
    assert len(asked) == asked_before + 1
    assert not calls


async def test_a_run_claimed_for_a_worker_that_is_no_more_is_not_executed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was declared dead while the claim was under way; what it began would be begun again elsewhere."""
    did: list[str] = []

    @workflow(id="starting-lost")
    async def lost(ctx: WorkflowContext) -> None:
        await ctx.step.run("charge", did.append, "charge")

    worker = fleet.hire()
    claim = coordinator.claimed

    async def claimed(*wanted: Any) -> Any:
        rows = await claim(*wanted)
        worker.runtime.worker_id = "reborn"
        return rows

    monkeypatch.setattr(coordinator, "claimed", claimed)
    run_id = fleet.create("starting-lost")
    assert await coordinator.coordinate(worker.runtime, run_id, NoSlot()) == "taken over"
    assert not did
