"""Answering what runs ask people: approvals of tools, `ask_user`, `ctx.step.suspend`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from polos.client import PolosClient
from polos.event_data import suspend_type
from polos.handles import ExecutionHandle

PREFIX = suspend_type("")
Run = ExecutionHandle | str


@dataclass(frozen=True)
class Question:
    """A question that a run waits with.

    Attributes:
        key: What it waits under.
        data: What it asks, as `ctx.step.suspend` was given it; forms of tools have ``_form``.
        run_id: The run that waits: the one asked about, or one below it.
    """

    key: str
    data: dict[str, Any]
    run_id: str | None


async def next_question(client: PolosClient, run: Run) -> Question:
    """Return what a run, or one below it, asks a person, once it does; what has waited longest first.

    Args:
        client: Of `runtime` or any other.
        run: A handle, such as of ``agent.stream()`` or ``invoke()``, or an id.

    Raises:
        AssertionError: The run has ended without a question.
    """
    run_id = run if isinstance(run, str) else run.id
    async for event in client.follow(run_id, live=True):
        if event.event_type is not None and event.event_type.startswith(PREFIX):
            where = event.data.get("_metadata") or {}
            key = event.event_type.removeprefix(PREFIX)
            return Question(key, event.data, where.get("execution_id"))
    record = await client.get_execution(run_id)
    raise AssertionError(
        f"Run {run_id} asks nothing: it has ended, {record['status']}"
        + (f" ({record['error']})" if record["error"] else "")
    )


async def answer_question(
    client: PolosClient, run: Run, data: Mapping[str, Any] | BaseModel, *, question: Question | None = None
) -> Question:
    """Wait until a run asks a person, answer in the person's place, and return what was asked.

    Args:
        client: Of `runtime` or any other.
        run: A handle or id.
        data: The answer: the fields of the form.
        question: What `next_question` returned, to look at it first.

    Raises:
        AssertionError: The run has ended without a question.
    """
    asked = question or await next_question(client, run)
    record = await client.get_execution(run if isinstance(run, str) else run.id)
    await client.resume(
        record["root_workflow_id"], record["root_execution_id"], asked.key, data, suspend_run_id=asked.run_id
    )
    return asked


async def approve(client: PolosClient, run: Run, *, allow_always: bool = False) -> Question:
    """Let a tool run that waits for approval, once or always in its session; return what was asked."""
    return await answer_question(client, run, {"approved": True, "allow_always": allow_always})


async def reject(client: PolosClient, run: Run, feedback: str = "") -> Question:
    """Keep a tool from running that waits for approval; the model reads the feedback."""
    return await answer_question(client, run, {"approved": False, "feedback": feedback})
