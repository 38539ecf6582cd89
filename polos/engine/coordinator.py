"""The core loop: claim a run, replay it, let its code go on as outcomes arrive, and store how it ends."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

from polos import serialization
from polos.current import current_context
from polos.engine import telling
from polos.engine.context import WorkflowContext, build_context
from polos.engine.execution import Execution
from polos.engine.outcomes import back_off, can_never_succeed, error_text, exits_as_errors
from polos.engine.runtime import Definition, Runtime, Slot
from polos.engine.signals import Drained, Fenced, Parked
from polos.engine.step import StepRunner
from polos.engine.telling import wants_stream
from polos.errors import (
    ExecutionCancelledError,
    InputError,
    NonDeterminismError,
    RunTimeoutError,
    WaitException,
)
from polos.faultpoints import faultpoint
from polos.journal.children import finish_child
from polos.journal.runs import (
    Claim,
    Ending,
    block_run,
    claim_from,
    claim_run,
    finish_run,
    hand_back_run,
    park_run,
    retry_run,
)
from polos.journal.statements import Rows, Unit
from polos.journal.states import RunStatus

logger = logging.getLogger("polos.engine")

LOOK_AGAIN_SECONDS = 0.5  # while code is in a real await during a replay: nothing tells when it comes back
UNWIND_SECONDS = 5.0  # for tasks that are cancelled; longer ones are left behind
RUN_RETRY_BASE_SECONDS = 1.0
RUN_RETRY_MAX_SECONDS = 60.0


async def coordinate(runtime: Runtime, run_id: str, slot: Slot) -> str:
    """Own a run until it ends, parks or is lost; return what became of it. Safe to call twice."""
    claim = await _claim(runtime, run_id)
    if claim is None:
        return "held elsewhere"
    claim = _with_kind(runtime, claim)
    execution = Execution(claim, runtime.journal, worker_id=runtime.worker_id)
    runtime.executions[run_id] = execution
    try:
        return await _run_or_fail(runtime, execution, slot)
    except Fenced as fenced:
        reason = ExecutionCancelledError(f"run {run_id} was cancelled") if fenced.cancelled else fenced
        await execution.put_away(reason, patience_seconds=UNWIND_SECONDS)
        return "cancelled" if fenced.cancelled else "taken over"
    except WaitException as signal:
        return type(signal).__name__.lower()
    except asyncio.CancelledError:  # a revoked task or a cold shutdown; the audit hands the run back
        await execution.put_away(Drained(), patience_seconds=UNWIND_SECONDS)
        raise
    finally:
        runtime.executions.pop(run_id, None)


async def _claim(runtime: Runtime, run_id: str) -> Claim | None:
    key = (run_id, "")
    if runtime.draining or run_id in runtime.executions or key in runtime.claiming:
        return None
    runtime.claiming.add(key)
    try:
        faultpoint("before_claim", "run")
        unit = claim_run(run_id, runtime.worker_id, project=runtime.project, deployment=runtime.deployment)
        rows = await runtime.journal.do(unit)
    finally:
        runtime.claiming.discard(key)
    if not rows:
        return None
    claim = claim_from(rows[0])
    faultpoint("after_claim", f"{claim.kind} {claim.name}")
    return claim


def _with_kind(runtime: Runtime, claim: Claim) -> Claim:
    """Fill in the kind of a run that was started by id where nobody knew its definition."""
    if claim.kind:
        return claim
    definition = runtime.resolve(claim.kind, claim.name, claim.caller)
    return claim if definition is None else replace(claim, kind=definition.workflow_type)


async def _run_or_fail(runtime: Runtime, execution: Execution, slot: Slot) -> str:
    """Execute; an error of the engine or of the journal counts as a failed attempt, not as a lost run."""
    try:
        return await _run_to_its_end(runtime, execution, slot)
    except Exception as error:
        logger.exception("Run %s (%s) cannot be executed", execution.run_id, execution.claim.name)
        return await _fail_or_retry(runtime, execution, None, error)


async def _run_to_its_end(runtime: Runtime, execution: Execution, slot: Slot) -> str:
    claim = execution.claim
    if claim.crashes >= runtime.settings.max_crashes:
        return await _finish(runtime, execution, _lost_too_often(claim))
    definition = runtime.resolve(claim.kind, claim.name, claim.caller)
    if definition is None:
        await _unit(runtime, execution, block_run(claim.id, claim.attempt, error=_unknown(claim)))
        return RunStatus.BLOCKED.value
    execution.streams = wants_stream(claim) or getattr(definition, "stream_to_workflow", False)
    telling.run_started(runtime, execution)
    await execution.load()
    context = build_context(execution, definition, StepRunner(runtime, execution))
    try:
        result = await _drive(runtime, execution, definition, context, slot)
    except WaitException:
        raise
    except RunTimeoutError as error:
        return await _time_out(runtime, execution, context, error)
    except NonDeterminismError as error:
        await execution.put_away(error_signal(execution), patience_seconds=UNWIND_SECONDS)
        await _unit(runtime, execution, block_run(claim.id, claim.attempt, error=error_text(error)))
        logger.error("Run %s (%s) is blocked: %s", claim.id, claim.name, error)
        return RunStatus.BLOCKED.value
    except (Exception, ExecutionCancelledError) as error:  # noqa: BLE001 - user code may raise anything
        return await _fail_or_retry(runtime, execution, context, error)
    else:
        return await _complete(runtime, execution, context, result)


async def _drive(
    runtime: Runtime, execution: Execution, definition: Definition, context: WorkflowContext, slot: Slot
) -> Any:
    """Run the body and deliver outcomes to it until it returns or raises.

    Raises:
        RunTimeoutError: The run's own time is used up.
        Fenced, Parked, Drained: It goes on elsewhere or later.
    """
    body = execution.start(lambda: _body(runtime, definition, context, execution))
    limit = execution.claim.run_timeout_seconds
    left = None if limit is None else max(limit - execution.claim.running_seconds, 0.0)
    try:
        async with asyncio.timeout(left) as clock:
            await _deliver_until(body, runtime, execution, slot)
    except TimeoutError:
        await execution.put_away(error_signal(execution), patience_seconds=UNWIND_SECONDS)
        if not clock.expired():
            raise
        raise RunTimeoutError(f"Run timed out after {limit:g} seconds of running") from None
    if execution.closing is not None and not isinstance(execution.closing, Exception):
        raise execution.closing
    if body.cancelled():
        raise RuntimeError("The body of the run cancelled itself (asyncio.CancelledError)")
    error = body.exception()
    if execution.left_over() and execution.has_ended() and not isinstance(error, NonDeterminismError):
        raise NonDeterminismError(
            f"The code ended without asking for steps the journal holds: {execution.left_over()}"
        ) from error
    if error is None:
        return body.result()
    if isinstance(error, SystemExit | KeyboardInterrupt):
        raise RuntimeError(f"The code of the run raised {error!r}; only workers end processes") from error
    raise error


async def _body(
    runtime: Runtime, definition: Definition, context: WorkflowContext, execution: Execution
) -> Any:
    current_context.set(context)
    try:
        payload = definition.parse_payload(_loads(execution.claim.input))
        context.state = definition.build_state(_loads(execution.claim.initial_state))
    except ValueError as error:  # recorded input: another attempt cannot help
        raise InputError(str(error)) from error
    await runtime.may_start()  # a process that was stopped after its claim wakes here
    execution.check_open()
    faultpoint("before_execute", f"{execution.claim.kind} {execution.claim.name}")
    with exits_as_errors():
        result = await definition.call(context, payload)
    faultpoint("after_execute", f"{execution.claim.kind} {execution.claim.name}")
    return result


async def _deliver_until(body: asyncio.Task[Any], runtime: Runtime, execution: Execution, slot: Slot) -> None:
    """Deliver outcomes one at a time; while only the journal can go on, hold no slot."""
    loop = asyncio.get_running_loop()
    while not body.done():
        execution.news.clear()
        async with execution.moving:
            delivered = execution.closing is None and await execution.deliver_next()
        if delivered or body.done():
            continue
        if execution.closing is not None:
            await asyncio.wait({body}, timeout=UNWIND_SECONDS)
            return
        if execution.only_waits() and slot.parks:
            await put_resident_away(runtime, execution)
        elif execution.only_waits():
            execution.waiting_since = loop.time()
            slot.yield_()
            await execution.news.wait()
            await slot.retake()
            execution.waiting_since = None
        elif execution.waits_for_others() and (
            execution.waits_indirectly() or not await _news_soon(execution)
        ):
            await _lend_slot(body, execution, slot)
        else:
            await _news_soon(execution)


async def _lend_slot(body: asyncio.Task[Any], execution: Execution, slot: Slot) -> None:
    """Let others have the slot: what code awaits beside a child may come of it, as with a semaphore."""
    slot.yield_()
    while not (body.done() or execution.only_waits() or await _news_soon(execution)):
        pass
    await slot.retake()


async def _news_soon(execution: Execution) -> bool:
    try:
        async with asyncio.timeout(LOOK_AGAIN_SECONDS):
            return await execution.news.wait()
    except TimeoutError:
        return False  # look again: code that was in a real await may now wait for the journal


# -- how a run ends


async def _complete(runtime: Runtime, execution: Execution, context: WorkflowContext, result: Any) -> str:
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
            **_tokens(result),
        )
    except (TypeError, ValueError) as error:
        return await _finish(runtime, execution, Ending(RunStatus.FAILED, error=error_text(error)))
    return await _finish(runtime, execution, ending)


async def _fail_or_retry(
    runtime: Runtime, execution: Execution, context: WorkflowContext | None, error: BaseException
) -> str:
    claim = execution.claim
    await execution.put_away(error_signal(execution), patience_seconds=UNWIND_SECONDS)
    if runtime.draining:  # what is raised while the process closes says nothing about the run
        await _unit(runtime, execution, _handed_back(runtime, claim))
        await runtime.ring_run(claim.id)
        raise Drained
    logger.info("Run %s (%s %s) raised", claim.id, claim.kind, claim.name, exc_info=error)
    if _may_retry(runtime, claim, error):
        delay = back_off(
            claim.retries, base_seconds=RUN_RETRY_BASE_SECONDS, max_seconds=RUN_RETRY_MAX_SECONDS
        )
        await _unit(
            runtime, execution, retry_run(claim.id, claim.attempt, error=error_text(error), delay=delay)
        )
        return RunStatus.QUEUED.value
    return await _finish(runtime, execution, _failure(context, error))


def _may_retry(runtime: Runtime, claim: Claim, error: BaseException) -> bool:
    if claim.kind == "tool":
        return False
    return not can_never_succeed(error) and claim.retries < runtime.settings.max_run_retries


async def _time_out(
    runtime: Runtime, execution: Execution, context: WorkflowContext, error: RunTimeoutError
) -> str:
    return await _finish(runtime, execution, replace(_failure(context, error), cancelled_by="timeout"))


def _failure(context: WorkflowContext | None, error: BaseException) -> Ending:
    try:
        state = _state(context)
    except (TypeError, ValueError):  # what cannot be stored matters less than why the run failed
        state = None
    return Ending(RunStatus.FAILED, error=error_text(error), final_state=state)


async def _finish(runtime: Runtime, execution: Execution, ending: Ending) -> str:
    claim = execution.claim
    if execution.tasks:  # tasks the body left behind
        await execution.put_away(error_signal(execution), patience_seconds=UNWIND_SECONDS)
    faultpoint("before_finish", f"{claim.kind} {claim.name}")
    rows = await _unit(runtime, execution, _ending_unit(runtime, claim, ending))
    faultpoint("after_finish", f"{claim.kind} {claim.name}")
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
    return ending.status.value


def _ending_unit(runtime: Runtime, claim: Claim, ending: Ending) -> Unit:
    if claim.awaited and claim.parent_id is not None and claim.parent_step is not None:
        return finish_child(
            claim.id,
            claim.attempt,
            ending,
            root_id=claim.root_id,
            parent_id=claim.parent_id,
            parent_step=claim.parent_step,
            ring_again=runtime.settings.ring_again_seconds,
        )
    return finish_run(claim.id, claim.attempt, ending, root_id=claim.root_id)


async def _unit(runtime: Runtime, execution: Execution, unit: Unit) -> Rows:
    rows = await runtime.journal.do(unit)
    if not rows:
        raise Fenced(execution.run_id)
    return rows


# -- putting a run away without ending it


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
    rows = await runtime.journal.do(park_run(claim.id, claim.attempt, seen_wakes=execution.seen_wakes))
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
    if await runtime.journal.do(_handed_back(runtime, execution.claim)):
        await runtime.ring_run(execution.run_id)
    execution.news.set()


def _handed_back(runtime: Runtime, claim: Claim) -> Unit:
    return hand_back_run(claim.id, claim.attempt, ring_again=runtime.settings.ring_again_seconds)


def error_signal(execution: Execution) -> BaseException:
    """Return what `ctx` calls raise in tasks that outlive the body of a run."""
    return Fenced(execution.run_id)


def _state(context: WorkflowContext | None) -> str | None:
    return (
        None
        if context is None or context.state is None
        else serialization.dumps(context.state, what="workflow state")
    )


def _tokens(result: Any) -> dict[str, Any]:
    usage = getattr(result, "usage", None)
    names = ("input_tokens", "output_tokens", "total_tokens")
    return {name: int(getattr(usage, name, 0) or 0) for name in names}


def _loads(text: str | None) -> Any:
    return None if text is None else serialization.loads(text)


def _lost_too_often(claim: Claim) -> Ending:
    return Ending(
        RunStatus.FAILED,
        error=f"worker_lost: {claim.crashes} workers died while they executed this {claim.kind}",
    )


def _unknown(claim: Claim) -> str:
    return (
        f"No {claim.kind} named {claim.name!r} is defined in this worker. Import the module that defines it "
        f"(POLOS_IMPORTS, or imports in celeryconfig.py), then: polos runs unblock {claim.id}"
    )
