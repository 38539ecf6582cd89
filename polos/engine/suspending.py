"""Waiting for an answer from outside, for as long as it takes, without holding anything."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel

from polos import event_data, serialization
from polos.approval_links import ApprovalRight
from polos.engine.event_waiting import hand_over_to_step
from polos.engine.execution import Execution
from polos.engine.inline import record_failure, value_of
from polos.engine.outcomes import completed
from polos.engine.runtime import Runtime
from polos.engine.timers import set_alarm
from polos.errors import AnswerError
from polos.faultpoints import faultpoint
from polos.journal.runs import READ_RUN, Claim, run_record
from polos.journal.states import StepStatus
from polos.journal.steps import StepRow, record_step
from polos.journal.suspends import READ_ANSWERED, READ_WAITS, resume_by_step, suspend
from polos.journal.waits import DueWait
from polos.records import api_time
from polos.step_names import shown, user_key
from polos.waits import Answer

LATEST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()  # that can be written


async def wait_for_answer(
    runtime: Runtime, execution: Execution, name: str, *, data: Any, timeout_seconds: float | None
) -> dict[str, Any]:
    """Ask once, return the answer as the event that gave it; a replay returns the record.

    Raises:
        StepExecutionError: Nobody answered in time.
        ValueTooLargeError, SerializationError: The data cannot be stored.
    """
    claim = execution.claim
    asked = None  # what is on record was small enough then
    if not execution.is_recorded(name):
        asked = _question(runtime, execution, name, data, timeout_seconds)
    place = {
        "project": claim.project,
        "root": claim.root_id,
        "topic": event_data.topic_of(claim.root_name, claim.root_id),
    }

    async def begin(position: int) -> None:
        question, text = asked or _question(runtime, execution, name, data, timeout_seconds)
        unit = suspend(
            claim.id,
            claim.attempt,
            name,
            position=position,
            place=place,
            event_type=event_data.suspend_type(shown(name)),
            event_data=text,
            answer_type=event_data.resume_type(shown(name)),
            timeout_seconds=timeout_seconds,
        )
        seq, number, kept, due_at, remaining = await execution.answer(unit)
        faultpoint("after_record", f"suspend {name}")
        status = StepStatus.RUNNING.value
        execution.under_way(StepRow(name, "suspend", position, None, status, 0, None, None, None, None))
        execution.scheduled(seq)
        event = (event_data.suspend_type(shown(name)), question)
        runtime.feed.numbered(claim.root_id, number, event, keep=execution.streams)
        if remaining is not None:
            began_at = due_at - (timeout_seconds or 0.0)
            wait = DueWait(
                claim.id, name, "suspend", began_at, due_at, claim.root_id, claim.project, is_live=True
            )
            set_alarm(runtime, execution, wait, remaining)
        if kept is not None:
            await hand_over_to_step(runtime, claim.id, name)

    answer: dict[str, Any] = value_of(await execution.outcome(name, "suspend", begin))
    return answer


async def answer_once(
    runtime: Runtime, execution: Execution, name: str, *, root_id: str, step_key: str, data: Any
) -> None:
    """Answer what waits under a key in another tree; the answer and this step are recorded together.

    Raises:
        StepExecutionError: There is no such run, or its form wants another answer, now or on record.
        ValueTooLargeError, SerializationError: The data cannot be stored.
    """
    claim = execution.claim
    given = data.model_dump(mode="json") if isinstance(data, BaseModel) else data

    async def begin(position: int) -> None:
        rows = await runtime.journal.read(READ_RUN, run=root_id)
        run = run_record(rows[0]) if rows else None
        if run is None or run["project"] != claim.project:
            problem = f"resume: there is no run {root_id!r} in project {claim.project!r}"
            await record_failure(runtime, execution, name, "resume", problem, position=position)
            return
        waits = await runtime.journal.read(READ_WAITS, root=run["root_id"])
        found = ((row[0], row[2]) for row in waits if row[1] == user_key(step_key))
        waiting, asked = next(found, (None, None))
        try:
            limit = runtime.settings.max_value_bytes
            now = runtime.clock.time()
            answer = Answer.of(run, step_key, given, asked=asked, max_value_bytes=limit, at=now)
        except AnswerError as error:
            await record_failure(runtime, execution, name, "resume", str(error), position=position)
            return
        outcome = completed(None, runtime.settings, what="")
        record = record_step(
            claim.id,
            claim.attempt,
            name,
            "resume",
            outcome,
            position=position,
            tries=1,
            worker=execution.worker_id,
        )
        ring_again = runtime.settings.ring_again_seconds
        unit = resume_by_step(record, waiting, user_key(step_key), **answer.columns(), ring_again=ring_again)
        seq, number = await execution.answer(unit)
        row = StepRow(name, "resume", position, seq, outcome.status.value, 1, None, None, None, None)
        execution.record(row)
        if number is not None:
            runtime.feed.numbered(run["root_id"], number, answer.event)
        asked_for = {"root": run["root_id"], "name": user_key(step_key)}
        for run_id, status, owner, output in await runtime.journal.read(READ_ANSWERED, **asked_for):
            if output == answer.output:  # not compared in SQL: it may be encrypted there
                await runtime.wake(run_id, status, owner)  # perhaps another than seemed to wait before

    value_of(await execution.outcome(name, "resume", begin))


def _question(
    runtime: Runtime, execution: Execution, name: str, data: Any, timeout_seconds: float | None
) -> tuple[dict[str, Any], str]:
    """Return what is asked, as data and as the text that is stored."""
    claim = execution.claim
    given = serialization.to_data(data.model_dump(mode="json") if isinstance(data, BaseModel) else data)
    asked = given if isinstance(given, dict) else {"value": given}
    question = {
        **_dated(runtime, asked, timeout_seconds),
        "_approval_url": _address(runtime, claim, shown(name), timeout_seconds),
        "_metadata": event_data.metadata(claim.id, claim.name),
    }
    limit = runtime.settings.max_value_bytes
    return question, serialization.dumps(question, limit_bytes=limit, what=f"data of suspend {shown(name)!r}")


def _dated(runtime: Runtime, asked: dict[str, Any], timeout_seconds: float | None) -> dict[str, Any]:
    """Return a question whose form says until when it may be answered, unless it says so already."""
    form = asked.get("_form")
    if (
        timeout_seconds is None
        or not isinstance(form, dict)
        or not {"expires_at", "expiresAt"}.isdisjoint(form)
    ):
        return asked
    expires_at = api_time(min(runtime.clock.time() + timeout_seconds, LATEST))
    return {**asked, "_form": {**form, "expires_at": expires_at}}


def _address(runtime: Runtime, claim: Claim, step_key: str, timeout_seconds: float | None) -> str:
    """Return where people answer: with a key, or by this very link if there is a secret to sign it."""
    settings = runtime.settings
    address = f"{settings.public_url.rstrip('/')}/approve/{claim.root_id}/{quote(step_key, safe='')}"
    if not settings.approval_secret:
        return address
    expires_at = runtime.clock.time() + (timeout_seconds or settings.approval_link_seconds)
    right = ApprovalRight(claim.project, claim.root_id, step_key, expires_at)
    return f"{address}?token={right.token(settings.approval_secret)}"
