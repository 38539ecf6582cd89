"""How a run ends: its result, its failure, its timeout; or another attempt."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

from polos import serialization
from polos.engine import telling
from polos.engine.context import WorkflowContext
from polos.engine.execution import Execution
from polos.engine.outcomes import back_off, can_never_succeed, error_text
from polos.engine.parking import UNWIND_SECONDS, error_signal, handed_back
from polos.engine.runtime import Runtime
from polos.engine.signals import Drained, Fenced
from polos.errors import EncryptionError, RunTimeoutError
from polos.faultpoints import faultpoint
from polos.journal.cancelling import Cancelled, Cancelling, Target, awaited_below, cancelling
from polos.journal.children import finish_child
from polos.journal.closing import close_run
from polos.journal.ends import Ending, finish_run
from polos.journal.memory import Remembered
from polos.journal.runs import Claim, retry_run
from polos.journal.statements import Rows, Unit
from polos.journal.states import RunStatus
from polos.journal.writer import Journal

logger = logging.getLogger("polos.engine")

RUN_RETRY_BASE_SECONDS = 1.0
RUN_RETRY_MAX_SECONDS = 60.0


async def complete(runtime: Runtime, execution: Execution, context: WorkflowContext, result: Any) -> str:
    """Store the result of a run; a result that cannot be stored is its failure."""
    claim = execution.claim
    try:
        ending = Ending(
            RunStatus.COMPLETED,
            output=serialization.dumps(
                result,
                limit_bytes=runtime.settings.max_value_bytes,
                what=f"result of {claim.kind} {claim.name!r}",
            ),
            output_schema=serialization.schema_name(result),
            final_state=_state(context),
        )
    except (TypeError, ValueError) as error:
        return await finish(runtime, execution, Ending(RunStatus.FAILED, error=error_text(error)))
    return await finish(runtime, execution, ending)


async def fail_or_retry(
    runtime: Runtime, execution: Execution, context: WorkflowContext | None, error: BaseException
) -> str:
    """Queue the run for another attempt, if one could help and it has any left; else end it as failed."""
    claim = execution.claim
    await execution.put_away(error_signal(execution), patience_seconds=UNWIND_SECONDS)
    if runtime.draining:  # what is raised while the process closes says nothing about the run
        await commit(runtime, execution, handed_back(runtime, execution))
        await runtime.ring_run(claim.id)
        raise Drained
    if isinstance(error, EncryptionError):  # another worker may have the key; it says nothing about the run
        logger.error("Run %s (%s %s) goes back to the queue: %s", claim.id, claim.kind, claim.name, error)
        await commit(runtime, execution, handed_back(runtime, execution))
        return RunStatus.QUEUED.value
    logger.info("Run %s (%s %s) raised", claim.id, claim.kind, claim.name, exc_info=error)
    if _may_retry(runtime, claim, error):
        delay = back_off(
            claim.retries, base_seconds=RUN_RETRY_BASE_SECONDS, max_seconds=RUN_RETRY_MAX_SECONDS
        )
        spent, text = execution.running.spent_seconds, error_text(error)
        unit = retry_run(claim.id, claim.attempt, error=text, delay=delay, spent_seconds=spent)
        await commit(runtime, execution, unit)
        return RunStatus.QUEUED.value
    return await finish(runtime, execution, _failure(context, error))


def _may_retry(runtime: Runtime, claim: Claim, error: BaseException) -> bool:
    if claim.kind == "tool":
        return False
    return not can_never_succeed(error) and claim.retries < runtime.settings.max_run_retries


async def time_out(
    runtime: Runtime, execution: Execution, context: WorkflowContext, error: RunTimeoutError
) -> str:
    """End a run whose own time is used up."""
    return await finish(runtime, execution, replace(_failure(context, error), cancelled_by="timeout"))


def _failure(context: WorkflowContext | None, error: BaseException) -> Ending:
    try:
        state = _state(context)
    except (TypeError, ValueError):  # what cannot be stored matters less than why the run failed
        state = None
    return Ending(RunStatus.FAILED, error=error_text(error), final_state=state)


async def finish(runtime: Runtime, execution: Execution, ending: Ending) -> str:
    """Store how the run ends, and tell whoever waits for it."""
    claim = execution.claim
    if execution.tasks:  # tasks the body left behind
        await execution.put_away(error_signal(execution), patience_seconds=UNWIND_SECONDS)
    faultpoint("before_finish", f"{claim.kind} {claim.name}")
    ending = replace(ending, spent=execution.running.spent_seconds)
    unit = _ending_unit(runtime, claim, ending, _remembered(execution, ending))
    rows = await commit(runtime, execution, unit)
    faultpoint("after_finish", f"{claim.kind} {claim.name}")
    runtime.let_go(execution)  # a retry may be claimed here at once
    _, status, owner, number = rows[0]
    telling.run_ended(runtime, execution, ending, number)
    runtime.announce_end(claim.id)
    if claim.awaited and claim.parent_id is not None:
        await runtime.wake(claim.parent_id, status, owner)
    # The failure of a tool is told to the model, not to people.
    expected = ending.status is RunStatus.COMPLETED or claim.kind == "tool"
    level = logging.INFO if expected else logging.WARNING
    logger.log(
        level, "Run %s (%s %s) %s %s", claim.id, claim.kind, claim.name, ending.status, ending.error or ""
    )
    if execution.has_open_steps() or ending.status is not RunStatus.COMPLETED:
        await _end_what_is_below(runtime, claim)
    return ending.status.value


async def _end_what_is_below(runtime: Runtime, claim: Claim) -> None:
    """Close what an ended run left open, and cancel the children it waited for; sweepers do it otherwise."""
    await runtime.journal.do(close_run(claim.id))
    statement, params = awaited_below(claim.id)
    targets = [Target(*row) for row in await runtime.journal.read(statement, **params)]
    work = cancelling(targets, by="parent", ring_again=runtime.settings.ring_again_seconds)
    for run in await _carried_out(work, runtime.journal):
        telling.run_cancelled(runtime, run)
        runtime.announce_end(run.run_id)
        await runtime.wake(run.run_id, None, run.owner)


async def _carried_out(work: Cancelling, journal: Journal) -> list[Cancelled]:
    answer: list[Any] | None = None
    try:
        while True:
            wanted = work.send(answer)  # type: ignore[arg-type]  # None begins it
            if isinstance(wanted, list):
                answer = await asyncio.gather(*map(journal.do, wanted))
            else:
                answer = await journal.read(wanted[0], **wanted[1])
    except StopIteration as done:
        found: list[Cancelled] = done.value
        return found


def _remembered(execution: Execution, ending: Ending) -> Remembered | None:
    left = execution.remembered
    return left if left is None or ending.status is RunStatus.COMPLETED else left.of_failure()


def _ending_unit(runtime: Runtime, claim: Claim, ending: Ending, remembered: Remembered | None) -> Unit:
    if claim.awaited and claim.parent_id is not None and claim.parent_step is not None:
        return finish_child(
            claim.id,
            claim.attempt,
            ending,
            root_id=claim.root_id,
            parent_id=claim.parent_id,
            parent_step=claim.parent_step,
            ring_again=runtime.settings.ring_again_seconds,
            remembered=remembered,
        )
    return finish_run(claim.id, claim.attempt, ending, root_id=claim.root_id, remembered=remembered)


async def commit(runtime: Runtime, execution: Execution, unit: Unit) -> Rows:
    """Commit a unit that begins with the run's fence; return its answer.

    Raises:
        Fenced: The run is no longer ours.
    """
    rows = await runtime.journal.do(unit)
    if not rows:
        raise Fenced(execution.run_id)
    return rows


def _state(context: WorkflowContext | None) -> str | None:
    return (
        None
        if context is None or context.state is None
        else serialization.dumps(context.state, what="workflow state")
    )
