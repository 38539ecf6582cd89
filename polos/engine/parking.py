"""Putting a run away without ending it: parked until something happens for it, or handed back."""

from __future__ import annotations

from polos.engine.execution import Execution
from polos.engine.runtime import Runtime
from polos.engine.signals import Drained, Fenced, Parked
from polos.journal.runs import block_run, hand_back_run, park_run
from polos.journal.statements import Unit

UNWIND_SECONDS = 5.0  # for tasks that are cancelled; longer ones are left behind


OTHERS = frozenset({"turn", "child"})  # what goes on elsewhere meanwhile, and ends by itself
CLOCKS = frozenset({"timer", "run"})  # what ends at a known time and never sooner


def parks_at_once(runtime: Runtime, execution: Execution) -> bool:
    """Whether a run that only waits does so for nothing but clocks, and those for long; or keeps others out.

    A slot of a limited queue is for what executes, or has a model called.
    """
    if execution.claim.slot is not None and not execution.claim.keeps_slot:
        return not execution.has_turns_under_way()
    seconds = execution.next_alarm_seconds()
    if seconds is None or seconds <= runtime.settings.wait_threshold_seconds:
        return False
    return execution.awaited_kinds() <= CLOCKS


def resident_seconds(runtime: Runtime, execution: Execution) -> float:
    """Return how long a run that only waits is kept in memory: longer where others work for it."""
    kinds, settings = execution.awaited_kinds(), runtime.settings
    if kinds and not kinds & OTHERS:
        return min(settings.wait_threshold_seconds, settings.resident_seconds)
    return settings.resident_seconds


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
    if execution.is_stale:
        return False  # a pause may be over whose end was seen before the pause was known of: nobody wakes it
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
    due_in = execution.next_alarm_seconds()
    await execution.put_away(Parked(), patience_seconds=UNWIND_SECONDS)
    execution.news.set()
    if due_in is not None:
        runtime.look_in(due_in)
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
