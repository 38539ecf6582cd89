"""Putting a run away without ending it: parked until something happens for it, or handed back."""

from __future__ import annotations

from polos.engine.execution import Execution
from polos.engine.runtime import Runtime
from polos.engine.signals import Drained, Fenced, Parked
from polos.journal.runs import block_run, hand_back_run, park_run
from polos.journal.statements import Unit

UNWIND_SECONDS = 5.0  # for tasks that are cancelled; longer ones are left behind


async def put_resident_away(runtime: Runtime, execution: Execution) -> None:
    """Park a run that waits, or hand it back if it only waits because this worker ends."""
    if execution.is_held_back:
        await hand_back(runtime, execution)
    else:
        await park(runtime, execution)


async def park(runtime: Runtime, execution: Execution) -> bool:
    """Throw a waiting run's coroutine away; False when something has happened for it meanwhile."""
    if execution.moving.locked():
        return False
    async with execution.moving:
        return await _park(runtime, execution)


async def _park(runtime: Runtime, execution: Execution) -> bool:
    claim = execution.claim
    if not execution.only_waits() or execution.closing is not None:
        return False
    execution.closing = Parked()
    rows = await runtime.journal.do(
        park_run(
            claim.id,
            claim.attempt,
            seen_wakes=execution.seen_wakes,
            spent_seconds=execution.running.spent_seconds,
            runs_on=execution.has_turns_under_way(),
        )
    )
    if not rows:
        execution.closing = None
        execution.look_again()
        return False
    await execution.put_away(Parked(), patience_seconds=UNWIND_SECONDS)
    execution.news.set()
    return True


async def hand_back(runtime: Runtime, execution: Execution) -> None:
    """Return a run that executes code to the queue, for a worker that ends; the code is cut off."""
    await execution.put_away(Drained(), patience_seconds=0.2)
    if await runtime.journal.do(handed_back(runtime, execution)):
        await runtime.ring_run(execution.run_id)
    execution.news.set()


def handed_back(runtime: Runtime, execution: Execution) -> Unit:
    """Return the unit that queues a run again."""
    return hand_back_run(
        execution.run_id,
        execution.claim.attempt,
        ring_again=runtime.settings.ring_again_seconds,
        spent_seconds=execution.running.spent_seconds,
    )


def blocked(execution: Execution, error: str) -> Unit:
    """Return the unit that stops a run until a person decides."""
    spent = execution.running.spent_seconds
    return block_run(execution.run_id, execution.claim.attempt, error=error, spent_seconds=spent)


def error_signal(execution: Execution) -> BaseException:
    """Return what `ctx` calls raise in tasks that outlive the body of a run."""
    return Fenced(execution.run_id)
