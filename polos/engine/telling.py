"""Telling readers what a run does: when its journal says so, and never instead of that."""

from __future__ import annotations

import json
from typing import Any

from polos import event_data as events
from polos import serialization
from polos.engine.execution import Execution
from polos.engine.runtime import Runtime
from polos.journal.cancelling import Cancelled
from polos.journal.ends import Ending
from polos.journal.runs import Claim
from polos.journal.states import RunStatus
from polos.journal.steps import Outcome
from polos.step_names import shown
from polos.types import ToolResult


def where(claim: Claim) -> dict[str, Any]:
    """Return which run an event tells of."""
    return events.metadata(claim.id, claim.name)


def run_started(runtime: Runtime, execution: Execution) -> None:
    """Tell that a run begins, unless it began before."""
    claim = execution.claim
    if not claim.begins or not _is_told(runtime, execution):
        return
    event = events.run_started(claim.kind, _value(claim.input), where(claim))
    if claim.started_event is not None:
        runtime.feed.numbered(claim.root_id, claim.started_event, event, keep=execution.streams)
    else:
        runtime.feed.live(claim.root_id, event, keep=execution.streams)


def run_ended(runtime: Runtime, execution: Execution, ending: Ending, number: int | None) -> None:
    """Tell that a run has ended, under the number its journal row has got."""
    claim = execution.claim
    if number is None or not _is_told(runtime, execution):
        return
    event = events.run_ended(
        claim.kind,
        ending.status.value,
        where(claim),
        result=_value(ending.output),
        error=ending.error,
        cancelled_by=ending.cancelled_by,
    )
    runtime.feed.numbered(claim.root_id, number, event, keep=execution.streams)


def run_cancelled(runtime: Runtime, run: Cancelled) -> None:
    """Tell that a run was cancelled because the one that waited for it has ended."""
    event = events.run_ended(
        run.kind,
        RunStatus.CANCELLED.value,
        events.metadata(run.run_id, run.name),
        error=run.error,
        cancelled_by=run.cancelled_by,
    )
    runtime.feed.numbered(run.root_id, run.number, event)


def step_started(runtime: Runtime, execution: Execution, name: str) -> None:
    """Tell that a step begins."""
    if _is_read(runtime, execution):
        event = events.step_started(shown(name), where(execution.claim))
        runtime.feed.live(execution.claim.root_id, event, keep=execution.streams)


def step_finished(
    runtime: Runtime, execution: Execution, name: str, outcome: Outcome, number: int | None
) -> None:
    """Tell the outcome of a step that was executed here; one of a root has a number."""
    if not _is_read(runtime, execution):
        return
    root_id = execution.claim.root_id
    value = _value(outcome.output)
    event = events.step_finished(shown(name), value, where(execution.claim), outcome.error)
    if number is None:
        runtime.feed.live(root_id, event, keep=execution.streams)
    else:
        runtime.feed.numbered(root_id, number, event, keep=execution.streams)


def turn_scheduled(runtime: Runtime, execution: Execution, name: str, *, streamed: bool) -> None:
    """Tell that a turn waits for its model."""
    if _is_read(runtime, execution):
        key = events.turn_key(name, streamed=streamed)
        event = events.step_started(key, where(execution.claim))
        runtime.feed.live(execution.claim.root_id, event, keep=execution.streams)


def handed_off(runtime: Runtime, execution: Execution, number: int, agent_id: str) -> None:
    """Tell that another agent speaks after turn `number`."""
    if _is_read(runtime, execution):
        event = events.handed_off(number, agent_id, where(execution.claim))
        runtime.feed.live(execution.claim.root_id, event, keep=execution.streams)


def turn_settled(
    runtime: Runtime, execution: Execution, name: str, answer: dict[str, Any], *, number: int, attempt: int
) -> None:
    """Tell a model's answer that was held back until the guardrails had passed it; readers get it whole."""
    streamed = execution.streams
    event = events.turn_finished(
        name, answer, where(execution.claim), streamed=streamed, attempt=attempt, error=None, guarded=True
    )
    runtime.feed.numbered(execution.claim.root_id, number, event, keep=streamed)


def tool_answered(runtime: Runtime, execution: Execution, number: int, result: ToolResult) -> None:
    """Tell what a tool call of turn `number` came to."""
    if _is_read(runtime, execution):
        event = events.tool_result(number, result.model_dump(mode="json"), where(execution.claim))
        runtime.feed.live(execution.claim.root_id, event, keep=execution.streams)


def _is_told(runtime: Runtime, execution: Execution) -> bool:
    """Whether begin and end are told: of a root that nobody reads they are not; its end has its notice."""
    claim = execution.claim
    return claim.root_id != claim.id or _is_read(runtime, execution)


def _is_read(runtime: Runtime, execution: Execution) -> bool:
    return execution.streams or runtime.feed.is_watched(execution.claim.root_id)


def _value(text: str | None) -> Any:
    return None if text is None else serialization.loads(text)


def wants_stream(claim: Claim) -> bool:
    """Whether whoever started this run asked for its answer token by token."""
    if claim.kind != "agent" or claim.input is None:
        return False
    payload = json.loads(claim.input)
    return isinstance(payload, dict) and payload.get("streaming") is True
