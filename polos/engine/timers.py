"""Waiting for a time: kept in the journal, ended by a clock of the loop or by a sweeper."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from polos import serialization
from polos.engine.execution import Execution
from polos.engine.inline import record_failure, value_of
from polos.engine.runtime import Runtime
from polos.engine.tasks import start_apart
from polos.faultpoints import faultpoint
from polos.journal.event_waits import expire_event_wait
from polos.journal.statements import Unit
from polos.journal.states import StepStatus
from polos.journal.steps import StepRow
from polos.journal.suspends import expire
from polos.journal.waits import READ_REMAINING, DueWait, end_wait, let_go_on, set_timer
from polos.step_names import shown


async def wait_until_due(
    runtime: Runtime,
    execution: Execution,
    name: str,
    *,
    seconds: float = 0.0,
    at: float | None = None,
    problem: str | None = None,
    past: str | None = None,
) -> None:
    """Return in `seconds`, or `at` a moment; a replay returns at once, or waits for the rest.

    Args:
        runtime: Of the worker.
        execution: The run.
        name: Of the step.
        seconds: From now, by the database's clock.
        at: Instead, seconds since the epoch.
        problem: Why there is nothing to wait for, recorded when the step is new.
        past: The same of a moment that is past by the database's clock; that of a worker may be wrong.

    Raises:
        StepExecutionError: There was nothing to wait for, now or on record.
    """
    claim = execution.claim

    async def begin(position: int) -> None:
        is_past = at is not None and at <= await runtime.journal.time()
        if (reason := past if is_past else problem) is not None:
            await record_failure(runtime, execution, name, "timer", reason, position=position)
            return
        unit = set_timer(claim.id, claim.attempt, name, position=position, seconds=seconds, at=at)
        seq, due_at, remaining = await execution.answer(unit)
        faultpoint("after_record", f"timer {name}")
        row = StepRow(name, "timer", position, None, StepStatus.RUNNING.value, 0, None, None, None, None)
        execution.under_way(row)
        execution.scheduled(seq)
        wait = DueWait(claim.id, name, "timer", 0.0, due_at, claim.root_id, claim.project, is_live=True)
        set_alarm(runtime, execution, wait, remaining)

    value_of(await execution.outcome(name, "timer", begin))


async def set_alarms(runtime: Runtime, execution: Execution) -> None:
    """Set the clocks of what earlier attempts have begun to wait for."""
    if not execution.has_open_steps():
        return
    claim = execution.claim
    for name, kind, began_at, due_at, remaining in await execution.journal.read(READ_REMAINING, run=claim.id):
        wait = DueWait(claim.id, name, kind, began_at, due_at, claim.root_id, claim.project, is_live=True)
        set_alarm(runtime, execution, wait, remaining)


def set_alarm(runtime: Runtime, execution: Execution, wait: DueWait, seconds: float) -> None:
    """End a wait in so many seconds, if the run is still resident then."""

    def ring() -> None:
        start_apart(_end(runtime, execution, wait), name=f"polos-due {wait.run_id}")

    execution.alarms.set(wait.name, seconds, ring)


async def _end(runtime: Runtime, execution: Execution, wait: DueWait) -> None:
    await runtime.journal.do(ending_of(wait, ring_again=runtime.settings.ring_again_seconds))
    execution.look_again()  # even if somebody else ended it: then too it has ended


def ending_of(wait: DueWait, *, ring_again: float) -> Unit:
    """Return the unit that ends a wait whose time has come; harmless when it has ended."""
    place: dict[str, Any] = {"root_id": wait.root_id, "ring_again": ring_again}
    key = shown(wait.name)
    match wait.kind:
        case "timer":
            return end_wait(wait.run_id, wait.name, output=_reached(wait.due_at), **place)
        case "event":
            error = f"Event wait expired at {_iso(wait.due_at)} (step {key!r})"
            return expire_event_wait(wait.run_id, wait.name, error=error, **place)
        case "suspend":
            error = f"Suspend {key!r} timed out after {wait.due_at - wait.began_at:.0f} seconds"
            return expire(wait.run_id, wait.name, error=error, **place)
        case _:
            return let_go_on(wait.run_id, wait.name, **place)


def _reached(due_at: float) -> str:
    return serialization.dumps({"wait_until": _iso(due_at)})


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()
