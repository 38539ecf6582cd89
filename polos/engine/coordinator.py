"""The core loop: claim a run, replay it, let its code go on as outcomes arrive, and store how it ends."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import Any

from polos import serialization
from polos.current import current_context
from polos.engine import telling
from polos.engine.context import WorkflowContext, build_context
from polos.engine.endings import commit, complete, fail_or_retry, finish, time_out
from polos.engine.execution import Execution
from polos.engine.hooks import call_with_hooks
from polos.engine.outcomes import error_text, exits_as_errors
from polos.engine.parking import (
    UNWIND_SECONDS,
    blocked,
    error_signal,
    parks_at_once,
    put_resident_away,
)
from polos.engine.runtime import Definition, Runtime, Slot
from polos.engine.signals import Drained, Fenced
from polos.engine.step import StepRunner
from polos.engine.suspects import Look, claimed
from polos.engine.telling import wants_stream
from polos.engine.timers import set_alarms
from polos.errors import (
    ExecutionCancelledError,
    InputError,
    NonDeterminismError,
    RunTimeoutError,
    WaitException,
)
from polos.faultpoints import faultpoint
from polos.journal.ends import Ending
from polos.journal.runs import Claim, claim_from, claim_run
from polos.journal.states import RunStatus
from polos.journal.suspects import READ_RUN_CRASHES

logger = logging.getLogger("polos.engine")

LOOK_AGAIN_SECONDS = 0.5  # while code is in a real await during a replay: nothing tells when it comes back


async def coordinate(runtime: Runtime, run_id: str, slot: Slot) -> str:
    """Own a run until it ends, parks or is lost; return what became of it. Safe to call twice."""
    worker_id = runtime.worker_id  # should it be declared dead, the worker goes on under another one
    claim = await _claim(runtime, run_id, slot)
    if claim is None:
        return "held elsewhere"
    if runtime.worker_id != worker_id:
        return "taken over"  # claimed for a worker that is no more: a sweeper puts it back
    claim = _with_kind(runtime, claim)
    execution = Execution(claim, runtime.journal, worker_id=worker_id, clock=runtime.clock)
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
        execution.alarms.clear()
        runtime.let_go(execution)
        if execution.was_rung and not runtime.draining:
            await runtime.ring_if_queued(run_id)
        if claim.slot is not None:  # ended or parked: another may have it
            runtime.doorman.look_at(claim.queue, claim.concurrency_key)


async def _claim(runtime: Runtime, run_id: str, slot: Slot) -> Claim | None:
    key = (run_id, "")
    if (here := runtime.executions.get(run_id)) is not None:
        here.was_rung = True  # perhaps for the attempt after this one
    if runtime.draining or here is not None or key in runtime.claiming:
        return None
    runtime.claiming.add(key)
    try:
        faultpoint("before_claim", "run")
        rows = await claimed(
            runtime,
            slot,
            partial(claim_run, run_id, runtime.worker_id),
            Look(READ_RUN_CRASHES, {"run": run_id}),
        )
    finally:
        runtime.claiming.discard(key)
    if not rows:
        return None
    claim = claim_from(rows[0])
    if claim.leaves_backlog or claim.slot is not None:
        runtime.doorman.claimed(
            claim.route if claim.leaves_backlog else None, None if claim.slot is None else claim.queue
        )
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
        return await fail_or_retry(runtime, execution, None, error)


async def _run_to_its_end(runtime: Runtime, execution: Execution, slot: Slot) -> str:
    claim = execution.claim
    definition = runtime.resolve(claim.kind, claim.name, claim.caller)
    if claim.crashes >= runtime.settings.max_crashes:
        if (input_left := getattr(definition, "input_left", None)) is not None:
            execution.remembered = input_left(claim, runtime.settings)
        return await finish(runtime, execution, _lost_too_often(claim))
    if definition is None:
        await commit(runtime, execution, blocked(execution, _unknown(claim)))
        return RunStatus.BLOCKED.value
    execution.streams = wants_stream(claim) or getattr(definition, "stream_to_workflow", False)
    telling.run_started(runtime, execution)
    await execution.load()
    await set_alarms(runtime, execution)
    context = build_context(execution, definition, StepRunner(runtime, execution))
    try:
        result = await _drive(runtime, execution, definition, context, slot)
    except WaitException:
        raise
    except RunTimeoutError as error:
        return await time_out(runtime, execution, context, error)
    except NonDeterminismError as error:
        await execution.put_away(error_signal(execution), patience_seconds=UNWIND_SECONDS)
        await commit(runtime, execution, blocked(execution, error_text(error)))
        logger.error("Run %s (%s) is blocked: %s", claim.id, claim.name, error)
        return RunStatus.BLOCKED.value
    except (Exception, ExecutionCancelledError) as error:  # noqa: BLE001 - user code may raise anything
        return await fail_or_retry(runtime, execution, context, error)
    else:
        return await complete(runtime, execution, context, result)


async def _drive(
    runtime: Runtime, execution: Execution, definition: Definition, context: WorkflowContext, slot: Slot
) -> Any:
    """Run the body and deliver outcomes to it until it returns or raises.

    Raises:
        RunTimeoutError: The run's own time is used up.
        Fenced, Parked, Drained: It goes on elsewhere or later.
    """
    body = execution.start(lambda: run_body(runtime, execution, definition, context))
    try:
        async with asyncio.timeout(None) as alarm:
            with execution.running.limited(alarm):
                await _deliver_until(body, runtime, execution, slot)
    except TimeoutError:
        await execution.put_away(error_signal(execution), patience_seconds=UNWIND_SECONDS)
        if not alarm.expired():
            raise
        raise execution.running.used_up() from None
    if execution.closing is not None and not isinstance(execution.closing, Exception):
        raise execution.closing
    if body.cancelled():
        raise RuntimeError("The body of the run cancelled itself (asyncio.CancelledError)")
    error = body.exception()
    execution.check_all_asked_for(error)
    if error is None:
        return body.result()
    if isinstance(error, SystemExit | KeyboardInterrupt):
        raise RuntimeError(f"The code of the run raised {error!r}; only workers end processes") from error
    raise error


async def run_body(
    runtime: Runtime, execution: Execution, definition: Definition, context: WorkflowContext
) -> Any:
    """Run the code of a definition on the run's recorded input, in the run's own first task.

    Raises:
        InputError: The input does not fit the definition.
        Exception: Whatever the code raises.
    """
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
        result = await call_with_hooks(runtime, execution, definition, context, payload)
    faultpoint("after_execute", f"{execution.claim.kind} {execution.claim.name}")
    return result


async def _deliver_until(body: asyncio.Task[Any], runtime: Runtime, execution: Execution, slot: Slot) -> None:
    """Deliver outcomes one at a time; while only the journal can go on, hold no slot."""
    loop = asyncio.get_running_loop()
    while not body.done():
        execution.news.clear()
        async with execution.moving:
            delivered = execution.closing is None and await execution.deliver_next()
        if execution.has_progressed:
            slot.narrow()  # it is a suspect no more
        if delivered or body.done():
            continue
        if execution.closing is not None:
            await asyncio.wait({body}, timeout=UNWIND_SECONDS)
            return
        if execution.only_waits() and (slot.parks or parks_at_once(runtime, execution)):
            await put_resident_away(runtime, execution)
        elif execution.only_waits():
            execution.waiting_since = loop.time()
            slot.yield_()
            with execution.waiting():
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
    while not (body.done() or execution.only_waits()):
        with execution.waiting(execution.waits_indirectly()):
            if await _news_soon(execution):
                break
    await slot.retake()


async def _news_soon(execution: Execution) -> bool:
    try:
        async with asyncio.timeout(LOOK_AGAIN_SECONDS):
            return await execution.news.wait()
    except TimeoutError:
        return False  # look again: code that was in a real await may now wait for the journal


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
