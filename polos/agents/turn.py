"""One turn: one model call, executed by whichever worker claims it, with retries that hold no slot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from polos import event_data, serialization
from polos.agents.agent import Agent
from polos.agents.attempts import failures_of, judge
from polos.agents.conversation import Asked, replayed
from polos.agents.deltas import Deltas
from polos.agents.fallbacks import ModelPolicy
from polos.agents.limits import check_price
from polos.agents.model_calls import ModelCall, prepare_call
from polos.agents.rate_limits import refusal
from polos.agents.remembering import read_history
from polos.agents.turn_spending import CallSpending, of_unknown_calls
from polos.allowances import Permit, Verdict
from polos.current import Place, current_place
from polos.engine.outcomes import completed, failed
from polos.engine.runtime import Models, Runtime, Slot
from polos.engine.suspects import Look, claimed
from polos.engine.tasks import start_apart
from polos.errors import EncryptionError, ModelError, ModelErrorKind
from polos.faultpoints import faultpoint
from polos.journal.memory import Watermark
from polos.journal.runs import READ_RUN_AND_CLOCK, run_record
from polos.journal.spending import Spent, count_late
from polos.journal.states import StepStatus
from polos.journal.steps import Outcome, StepRow
from polos.journal.suspects import READ_TURN_CRASHES
from polos.journal.turns import (
    READ_TURNS,
    TurnClaim,
    claim_turn,
    complete_turn,
    hand_back_turn,
    put_turn_off,
    retry_turn,
)
from polos.models.request import ModelAnswer, ModelRequest

logger = logging.getLogger("polos.agents")


async def execute_turn(runtime: Runtime, run_id: str, name: str, slot: Slot) -> str:
    """Execute a scheduled turn; return what became of it. Safe to call twice."""
    key = (run_id, name)
    if runtime.draining or key in runtime.turns or key in runtime.claiming:
        return "held elsewhere"
    worker_id = runtime.worker_id  # should it be declared dead, the worker goes on under another one
    claim = await _claim(runtime, run_id, name, slot)
    if claim is None:
        return "held elsewhere"
    runtime.turns[key] = None
    try:
        return await _execute(runtime, claim, worker_id)
    finally:
        runtime.turns.pop(key, None)


async def _claim(runtime: Runtime, run_id: str, name: str, slot: Slot) -> TurnClaim | None:
    runtime.claiming.add((run_id, name))
    try:
        faultpoint("before_claim", "turn")
        rows = await claimed(
            runtime,
            slot,
            partial(claim_turn, run_id, name, runtime.worker_id),
            Look(READ_TURN_CRASHES, {"run": run_id, "name": name}),
        )
    finally:
        runtime.claiming.discard((run_id, name))
    if not rows:
        return None
    faultpoint("after_claim", "turn")
    return TurnClaim(*rows[0])


async def _execute(runtime: Runtime, claim: TurnClaim, worker_id: str) -> str:
    [(now, *columns)] = await runtime.journal.read(READ_RUN_AND_CLOCK, run=claim.run_id)
    run = run_record(tuple(columns))
    if claim.crashes >= runtime.settings.max_crashes:
        message = f"worker_lost: {claim.crashes} workers died while they executed this turn"
        return await _complete(runtime, claim, failed(message), run, spent=_spent_before(claim, run))
    agent = runtime.resolve("agent", run["name"], run["caller"])
    if not isinstance(agent, Agent):
        return await _hand_back(runtime, claim)
    try:
        asked = await _asked(runtime, claim, run["project"])
        call = prepare_call(claim, agent, asked, run, runtime.settings, now=now)
        # Before `may_start`, which says what is true for a moment only.
        await runtime.models.ready(call.request)
        check_price(call.budgets, call.request, runtime.models)
    except EncryptionError as error:  # another worker may have the key
        logger.error("Turn %s of run %s goes back to the queue: %s", claim.name, claim.run_id, error)
        return await _hand_back(runtime, claim)
    except Exception as error:  # noqa: BLE001 - made from recorded values: another attempt cannot help
        return await _failed(runtime, claim, error, run, spent=_spent_before(claim, run))
    permit = await runtime.rate_limits.ask(call.request, claim.ticket)
    if permit.answer.verdict is not Verdict.GO:
        return await _put_off(runtime, claim, run, call, permit)
    await runtime.may_start()
    if runtime.worker_id != worker_id:
        return "taken over"
    if runtime.draining:
        return await _hand_back(runtime, claim)
    number = event_data.turn_number(claim.name)
    deltas = _deltas(runtime, claim, run, number) if asked.is_told_live and number is not None else None
    spending = CallSpending(
        asked.agent or run["name"], call.request, claim.interrupted_calls, runtime.models.cost
    )
    return await _call(runtime, claim, call, run, deltas, spending, permit)


def _spent_before(claim: TurnClaim, run: dict[str, Any]) -> Spent:
    return of_unknown_calls(run["name"], claim.interrupted_calls)


async def _asked(runtime: Runtime, claim: TurnClaim, project: str) -> Asked:
    rows = await runtime.journal.read(READ_TURNS, run=claim.run_id, until=claim.position)
    asked = replayed(((row[0], row[1], row[2], row[3]) for row in rows), claim.name)
    if asked.history is not None:
        asked.messages[:0] = await read_history(runtime.journal, project, Watermark(**asked.history))
    return asked


def _deltas(runtime: Runtime, claim: TurnClaim, run: dict[str, Any], number: int) -> Deltas:
    return Deltas(
        runtime,
        root_id=run["root_id"],
        where=event_data.metadata(run["id"], run["name"]),
        number=number,
        attempt=claim.attempt,
    )


async def _call(
    runtime: Runtime,
    claim: TurnClaim,
    call: ModelCall,
    run: dict[str, Any],
    deltas: Deltas | None,
    spending: CallSpending,
    permit: Permit,
) -> str:
    """Make the model call and record what came of it."""
    faultpoint("before_execute", f"turn {run['name']}")
    begins_at = runtime.clock.monotonic() + permit.answer.seconds
    may_send = partial(_may_send, runtime, runtime.worker_id, spending, begins_at)
    answering = _generate(runtime.models, call.request, deltas, current_place.get(), may_send)
    calling = start_apart(answering, name=f"model call {run['name']}")
    runtime.turns[(claim.run_id, claim.name)] = calling
    try:
        answer: ModelAnswer = await calling
    except asyncio.CancelledError:
        if not calling.cancelled():  # we are cancelled, not the call: a revoked task
            calling.cancel()
            raise
        await _count_late(runtime, claim, spending.broken_off())
        return "taken over"  # the audit found that the turn is no longer ours
    except Exception as error:  # noqa: BLE001 - whatever a provider's client raises
        if runtime.draining:  # what is raised while the process closes says nothing about the model
            return await _hand_back(runtime, claim, was_sent=spending.is_sent)
        await _learn(runtime, call, permit, error)
        return await _failed(runtime, claim, error, run, call, spent=spending.failed(error))
    runtime.rate_limits.settle(permit, answer.usage.total_tokens)
    faultpoint("after_execute", f"turn {run['name']}")
    answer = spending.counted(answer)
    outcome = _outcome(runtime, claim, call.kept(answer))
    return await _complete(runtime, claim, outcome, run, call.asked, spent=spending.answered(answer))


async def _generate(
    models: Models,
    request: ModelRequest,
    deltas: Deltas | None,
    place: Place | None,
    may_send: Callable[[], Awaitable[None]],
) -> ModelAnswer:
    current_place.set(place)  # a task apart has a context of its own
    if deltas is None:
        return await models.generate(request, before_send=may_send)
    deltas.begin()
    return await models.generate(request, before_send=may_send, on_chunk=deltas.tell)


async def _may_send(runtime: Runtime, worker_id: str, spending: CallSpending, begins_at: float) -> None:
    """Return once the request may go out, by the worker that made it.

    `begins_at` is when its turn among the calls of its model has come, by the monotonic clock.

    Raises:
        asyncio.CancelledError: It was declared dead meanwhile: the turn is executed elsewhere.
    """
    if (early := begins_at - runtime.clock.monotonic()) > 0:
        await runtime.clock.sleep(early)
    await runtime.may_start()
    if runtime.worker_id != worker_id:
        raise asyncio.CancelledError
    spending.is_sent = True


def _outcome(runtime: Runtime, claim: TurnClaim, answer: ModelAnswer) -> Outcome:
    try:
        data = answer.model_dump(mode="json")
        return completed(data, runtime.settings, what=f"answer of {claim.name}", failures=claim.failures)
    except (TypeError, ValueError) as error:
        return failed(str(error), failures=claim.failures)


async def _complete(
    runtime: Runtime,
    claim: TurnClaim,
    outcome: Outcome,
    run: dict[str, Any],
    asked: Asked | None = None,
    *,
    spent: Spent,
) -> str:
    held_back = asked is not None and asked.guarded and outcome.status is StepStatus.COMPLETED
    rows = await runtime.journal.do(
        complete_turn(
            claim,
            runtime.worker_id,
            outcome,
            root_id=run["root_id"],
            ring_again=runtime.settings.ring_again_seconds,
            told=not held_back,
            spent=spent,
        )
    )
    if not rows:
        await _count_late(runtime, claim, spent)
        return "taken over"
    faultpoint("after_record", "turn")
    status, owner, seq, number = rows[0]
    if number is not None and not held_back:
        streamed = asked is not None and asked.streamed
        _tell(runtime, claim, outcome, run, number=number, streamed=streamed)
    if owner == runtime.worker_id and (execution := runtime.executions.get(claim.run_id)) is not None:
        execution.completed_here(_row(claim, outcome, seq, spent))
    else:
        await runtime.wake(claim.run_id, status, owner)
    return outcome.status.value


def _tell(
    runtime: Runtime,
    claim: TurnClaim,
    outcome: Outcome,
    run: dict[str, Any],
    *,
    number: int,
    streamed: bool,
) -> None:
    """Tell that the turn has its outcome; readers complete what they have of its text by it."""
    event = event_data.turn_finished(
        claim.name,
        None if outcome.output is None else serialization.loads(outcome.output),
        event_data.metadata(run["id"], run["name"]),
        streamed=streamed,
        attempt=claim.attempt,
        error=outcome.error,
    )
    runtime.feed.numbered(run["root_id"], number, event, keep=streamed)


def _row(claim: TurnClaim, outcome: Outcome, seq: int, spent: Spent) -> StepRow:
    used = claim.spent + spent
    return StepRow(
        claim.name,
        "turn",
        claim.position,
        seq,
        outcome.status.value,
        claim.tries,
        outcome.output,
        None,
        outcome.error,
        None,
        outcome.failures,
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cached_tokens=used.cached_tokens,
        cost=used.cost,
    )


async def _count_late(runtime: Runtime, claim: TurnClaim, spent: Spent) -> None:
    """Count what a call used whose turn is no longer ours; nothing happens where others do."""
    await runtime.journal.do(count_late(claim.run_id, claim.name, claim.attempt, spent))


async def _failed(
    runtime: Runtime,
    claim: TurnClaim,
    error: Exception,
    run: dict[str, Any],
    call: ModelCall | None = None,
    *,
    spent: Spent,
) -> str:
    """Record that the model gave no answer, and go on as the policy of the agent that speaks says."""
    verdict = judge(
        error,
        asked="" if call is None else call.label,
        failures=failures_of(claim.failures),
        policy=ModelPolicy() if call is None else call.policy,
        settings=runtime.settings,
        at=runtime.clock.time(),
    )
    if verdict.delay is None:
        logger.warning("Turn %s of run %s failed: %s", claim.name, claim.run_id, verdict.error)
        outcome = failed(verdict.error, failures=verdict.failures)
        asked = None if call is None else call.asked
        return await _complete(runtime, claim, outcome, run, asked, spent=spent)
    delay = verdict.delay
    logger.info("Turn %s of run %s is tried again in %.1f s: %s", claim.name, claim.run_id, delay, error)
    unit = retry_turn(
        claim, runtime.worker_id, error=verdict.error, failures=verdict.failures, delay=delay, spent=spent
    )
    if not await runtime.journal.do(unit):
        await _count_late(runtime, claim, spent)
        return "taken over"
    _ring_later(runtime, claim, run, delay)
    return StepStatus.SCHEDULED.value


async def _learn(runtime: Runtime, call: ModelCall, permit: Permit, error: Exception) -> None:
    """Count a call that was refused without tokens, and let nobody ask while its provider wants a pause."""
    if not isinstance(error, ModelError):
        return
    if error.status_code is not None:
        runtime.rate_limits.settle(permit, 0)
    if error.kind is ModelErrorKind.RATE_LIMIT and error.retry_after_seconds:
        await runtime.rate_limits.pause(call.request, error.retry_after_seconds)


async def _put_off(
    runtime: Runtime, claim: TurnClaim, run: dict[str, Any], call: ModelCall, permit: Permit
) -> str:
    """Give the turn back until its model may be asked; it keeps its place in line."""
    if permit.answer.verdict is Verdict.REFUSED:
        error = refusal(permit, call.request, runtime.settings)
        return await _failed(runtime, claim, error, run, call, spent=_spent_before(claim, run))
    seconds = permit.answer.seconds
    logger.info("Turn %s of run %s waits %.1f s for %s", claim.name, claim.run_id, seconds, permit.name)
    unit = put_turn_off(claim, runtime.worker_id, ticket=permit.answer.ticket, delay=seconds)
    if not await runtime.journal.do(unit):
        return "taken over"
    _ring_later(runtime, claim, run, seconds)
    return StepStatus.SCHEDULED.value


def _ring_later(runtime: Runtime, claim: TurnClaim, run: dict[str, Any], delay: float) -> None:
    """Ring when the pause is over; should this process die before, the sweeper does."""
    bell = (claim.run_id, claim.name, run["name"], run["route"], run["deployment"])
    runtime.clock.call_later(delay + 0.01, runtime.ring_turn, *bell)


async def _hand_back(runtime: Runtime, claim: TurnClaim, *, was_sent: bool = False) -> str:
    unit = hand_back_turn(
        claim, runtime.worker_id, ring_again=runtime.settings.ring_again_seconds, was_sent=was_sent
    )
    await runtime.journal.do(unit)
    return StepStatus.SCHEDULED.value
