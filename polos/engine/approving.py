"""Approval before something is done: a person is asked, and the run waits without holding anything."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from polos import serialization
from polos.engine.calling import call_in_step
from polos.engine.context import WorkflowContext
from polos.engine.execution import Execution
from polos.engine.inline import run_inline
from polos.engine.runtime import Runtime
from polos.engine.suspending import wait_for_answer
from polos.errors import StepExecutionError
from polos.journal.runs import Claim
from polos.journal.standing_approvals import READ_STANDING, AllowedCall, allow
from polos.step_names import internal, user_key

PLAN = internal("approval")
REMEMBERED = internal("approval_remembered")
Decide = Callable[[WorkflowContext, Any], Any]


@dataclass(frozen=True)
class Gate:
    """What stands before a tool.

    Attributes:
        tool: Its id.
        decide: Says of an input whether a person must be asked, ``(ctx, input) -> bool``; None: always.
        timeout_seconds: How long a question waits for its answer; None for ever.
    """

    tool: str
    decide: Decide | None = None
    timeout_seconds: float | None = None


async def pass_gate(ctx: WorkflowContext, gate: Gate, given: Any) -> None:
    """Return once the tool may run with this input; `given` is what its function takes.

    What is decided, asked and answered is recorded: a replay asks nobody again.

    Raises:
        RuntimeError: A person rejected it, or nobody answered in time.
        StepExecutionError: The function that decides failed, or returned something else than a bool.
    """
    runtime, execution = ctx.step.engine
    call = _call(execution.claim, gate.tool, given)

    async def plan() -> str | None:
        return await _key_of_question(runtime, ctx, gate, given, call)

    key = await run_inline(runtime, execution, PLAN, "run", plan)
    if key is not None:
        await _ask(runtime, execution, gate, call, key)


async def _key_of_question(
    runtime: Runtime, ctx: WorkflowContext, gate: Gate, given: Any, call: AllowedCall
) -> str | None:
    """Return the key to ask under, None when nobody has to be asked."""
    if gate.decide is not None and not await _decided(ctx, gate.tool, gate.decide, given):
        return None
    days = runtime.settings.standing_approval_days
    if call.session_id and await runtime.journal.read(READ_STANDING, id=call.id, days=days):
        return None
    return f"approve_{gate.tool}_{uuid.uuid4()}"


async def _decided(ctx: WorkflowContext, tool: str, decide: Decide, given: Any) -> bool:
    try:
        asks = await call_in_step(decide, (ctx, given), {})
    except Exception as error:  # whatever it raises, the tool does not run
        raise StepExecutionError(
            f"Tool {tool!r} was not run: its approval function failed ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(asks, bool):
        raise StepExecutionError(
            f"Tool {tool!r} was not run: its approval function returned {asks!r}; it must return True (ask a "
            "person) or False (run the tool)"
        )
    return asks


async def _ask(runtime: Runtime, execution: Execution, gate: Gate, call: AllowedCall, key: str) -> None:
    try:
        event = await wait_for_answer(
            runtime, execution, user_key(key), data=question(call), timeout_seconds=gate.timeout_seconds
        )
    except StepExecutionError as error:
        raise RuntimeError(
            f"Tool {gate.tool!r} was not run: nobody approved it within {gate.timeout_seconds:g} seconds"
        ) from error
    answer = event["data"]
    if answer.get("approved") is not True:
        raise RuntimeError(rejection(f"Tool {gate.tool!r}", answer))
    if answer.get("allow_always") is True and call.session_id:
        await _remember(runtime, execution, call, event.get("answered_by"))


def question(call: AllowedCall) -> dict[str, Any]:
    """Return what is asked about a call of a tool."""
    return {
        "_form": {
            "title": f"Approve tool: {call.tool}",
            "description": f"{call.agent or 'A program'} wants to run {call.tool!r}.",
            "fields": [
                field("approved", "boolean", "Approve this call?", required=True, default=False),
                field("allow_always", "boolean", "Allow this very call for the whole session", default=False),
                field("feedback", "textarea", "Feedback"),
            ],
            "context": {"tool": call.tool, "input": call.arguments},
        },
        "_source": "tool_approval",
        "_tool": call.tool,
    }


def field(key: str, kind: str, label: str, *, required: bool = False, **more: Any) -> dict[str, Any]:
    """Return a field of a form, under both names that readers of forms know."""
    return {"key": key, "name": key, "type": kind, "label": label, "required": required, **more}


def rejection(what: str, answer: dict[str, Any]) -> str:
    """Return the message that something was rejected, with what the person said of it."""
    feedback = answer.get("feedback")
    said = f" Feedback: {feedback}" if isinstance(feedback, str) and feedback.strip() else ""
    return f"{what} was rejected by the user.{said}"


async def _remember(
    runtime: Runtime, execution: Execution, call: AllowedCall, answered_by: str | None
) -> None:
    async def remember() -> str:
        await runtime.journal.do(allow(call, run_id=execution.run_id, answered_by=answered_by))
        return call.id

    await run_inline(runtime, execution, REMEMBERED, "run", remember)


def _call(claim: Claim, tool: str, given: Any) -> AllowedCall:
    return AllowedCall(
        project=claim.project,
        session_id=claim.session_id or "",
        agent=claim.caller or "",
        tool=tool,
        arguments=serialization.to_data(given) if given is not None else {},
    )
