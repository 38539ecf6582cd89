"""A worker that may have been taken for dead, such as a stopped process that wakes, begins no user code."""

from __future__ import annotations

import asyncio
import threading

from fleet import Fleet, until

from polos import WorkflowContext, workflow
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
