"""Waiting for an answer from outside, for as long as it takes, without holding anything."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel

from polos import event_data, serialization
from polos.approval_links import ApprovalRight
from polos.engine.execution import Execution
from polos.engine.inline import value_of
from polos.engine.runtime import Runtime
from polos.faultpoints import faultpoint
from polos.journal.runs import Claim
from polos.journal.states import StepStatus
from polos.journal.steps import StepRow
from polos.journal.suspends import suspend
from polos.step_names import shown


async def wait_for_answer(
    runtime: Runtime, execution: Execution, name: str, *, data: Any, timeout_seconds: float | None
) -> dict[str, Any]:
    """Ask once, return the answer as the event that gave it; a replay returns the record.

    Raises:
        StepExecutionError: Nobody answered in time.
        ValueTooLargeError, SerializationError: The data cannot be stored.
    """
    claim = execution.claim
    question = _question(runtime, execution, name, data, timeout_seconds)
    text = serialization.dumps(
        question, limit_bytes=runtime.settings.max_value_bytes, what=f"data of suspend {shown(name)!r}"
    )
    place = {
        "project": claim.project,
        "root": claim.root_id,
        "topic": event_data.topic_of(claim.root_name, claim.root_id),
    }

    async def begin(position: int) -> None:
        unit = suspend(
            claim.id,
            claim.attempt,
            name,
            position=position,
            place=place,
            event_type=event_data.suspend_type(shown(name)),
            event_data=text,
            timeout_seconds=timeout_seconds,
        )
        seq, number = await execution.answer(unit)
        faultpoint("after_record", f"suspend {name}")
        status = StepStatus.RUNNING.value
        execution.under_way(StepRow(name, "suspend", position, None, status, 0, None, None, None, None))
        execution.scheduled(seq)
        event = (event_data.suspend_type(shown(name)), question)
        runtime.feed.numbered(claim.root_id, number, event, keep=execution.streams)

    answer: dict[str, Any] = value_of(await execution.outcome(name, "suspend", begin))
    return answer


def _question(
    runtime: Runtime, execution: Execution, name: str, data: Any, timeout_seconds: float | None
) -> dict[str, Any]:
    claim = execution.claim
    given = serialization.to_data(data.model_dump(mode="json") if isinstance(data, BaseModel) else data)
    asked = given if isinstance(given, dict) else {"value": given}
    return {
        **asked,
        "_approval_url": _address(runtime, claim, shown(name), timeout_seconds),
        "_metadata": event_data.metadata(claim.id, claim.name),
    }


def _address(runtime: Runtime, claim: Claim, step_key: str, timeout_seconds: float | None) -> str:
    """Return where people answer: with a key, or by this very link if there is a secret to sign it."""
    settings = runtime.settings
    address = f"{settings.public_url.rstrip('/')}/approve/{claim.root_id}/{quote(step_key, safe='')}"
    if not settings.approval_secret:
        return address
    expires_at = time.time() + (timeout_seconds or settings.approval_link_seconds)
    right = ApprovalRight(claim.project, claim.root_id, step_key, expires_at)
    return f"{address}?token={right.token(settings.approval_secret)}"
