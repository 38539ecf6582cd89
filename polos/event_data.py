"""What happens in a run tree, as events: their types and their data, the same live and from the journal."""

from __future__ import annotations

import re
from typing import Any

Data = dict[str, Any]
TURN_STEP = "llm_stream:"  # begins the key of a turn's step where the answer is streamed
PLAIN_TURN_STEP = "llm_generate:"
_LOOP_TURN = re.compile(r"(\d+)(?::\w+)?")  # the n-th call of a loop, perhaps made once more
STEP_TYPE = "run"
_SHOWN_OF_ANSWER = ("content", "tool_calls", "usage", "stop_reason", "model", "provider")


def topic_of(root_name: str, root_id: str) -> str:
    """Return the topic of a run tree."""
    return f"workflow/{root_name}/{root_id}"


def metadata(run_id: str, workflow_id: str) -> Data:
    """Return which run an event tells of."""
    return {"execution_id": run_id, "workflow_id": workflow_id}


def run_started(kind: str, payload: Any, where: Data) -> tuple[str, Data]:
    """A run's code begins for the first time. `payload` is JSON data, `where` from `metadata`."""
    return f"{kind or 'workflow'}_start", {"payload": payload, "_metadata": where}


def run_ended(
    kind: str, status: str, where: Data, *, result: Any = None, error: str | None, cancelled_by: str | None
) -> tuple[str, Data]:
    """A run has ended: ``{kind}_finish`` with its result or ``error``, or ``{kind}_cancel``."""
    kind = kind or "workflow"
    if status == "cancelled":
        return f"{kind}_cancel", {"error": error, "cancelled_by": cancelled_by, "_metadata": where}
    if status == "completed":
        return f"{kind}_finish", {"result": result, "_metadata": where}
    failure = {"result": None, "error": error or "failed", "cancelled_by": cancelled_by}
    return f"{kind}_finish", {**failure, "_metadata": where}


def run_retried(kind: str, where: Data, error: str | None) -> tuple[str, Data]:
    """A person lets a run go on that had ended with `error`; stands in the stream instead of that end."""
    return f"{kind or 'workflow'}_retry", {"error": error, "_metadata": where}


def step_retried(key: str, where: Data, error: str | None) -> tuple[str, Data]:
    """A step that failed is begun anew, for a person lets its run go on; stands instead of its end."""
    return "step_retry", {"step_key": key, "step_type": STEP_TYPE, "error": error, "_metadata": where}


def ends_run(event_type: str | None, data: Data, run_id: str) -> bool:
    """Whether this event says that run `run_id` has ended."""
    kind, _, what = (event_type or "").rpartition("_")
    if what not in {"finish", "cancel"} or kind not in {"workflow", "agent", "tool"}:
        return False
    return bool((data.get("_metadata") or {}).get("execution_id") == run_id)


def suspend_type(key: str) -> str:
    """Return the type of the event that asks for an answer to step `key`."""
    return f"suspend_{key}"


def resume_type(key: str) -> str:
    """Return the type of the event that answers."""
    return f"resume_{key}"


def turn_key(name: str, *, streamed: bool) -> str:
    """Return the step key that people see of the turn that the journal calls ``$turn:3`` or alike."""
    return (TURN_STEP if streamed else PLAIN_TURN_STEP) + name.partition(":")[2]


def turn_number(name: str) -> int | None:
    """Return which call of its loop a turn is, counted from 1; None for one beside the conversation."""
    found = _LOOP_TURN.fullmatch(name.partition(":")[2])
    return int(found[1]) if found else None


def was_streamed(turn_ended: Data) -> bool:
    """Whether the answer of the turn whose end `turn_ended` tells was streamed."""
    return str(turn_ended["step_key"]).startswith(TURN_STEP)


def step_started(key: str, where: Data, data: Any = None) -> tuple[str, Data]:
    """A step begins."""
    return "step_start", {"step_key": key, "step_type": STEP_TYPE, "data": data, "_metadata": where}


def step_finished(key: str, result: Any, where: Data, error: str | None = None) -> tuple[str, Data]:
    """A step has an outcome on record."""
    outcome = {"result": result} if error is None else {"result": None, "error": error}
    return "step_finish", {"step_key": key, "step_type": STEP_TYPE, "data": outcome, "_metadata": where}


def turn_finished(
    name: str,
    answer: Data | None,
    where: Data,
    *,
    streamed: bool,
    attempt: int,
    error: str | None,
    guarded: bool = False,
) -> tuple[str, Data]:
    """A turn has an outcome on record. `answer` is a model's answer as JSON data.

    `guarded`: it is told at once, after guardrails have passed it, and not piece by piece.
    """
    shown = None if answer is None else {name: answer.get(name) for name in _SHOWN_OF_ANSWER}
    kind, data = step_finished(turn_key(name, streamed=streamed), shown, where, error)
    if (number := turn_number(name)) is None:
        return kind, data
    data.update(step=number, attempt=attempt)
    return kind, {**data, "guarded": True} if guarded else data


def stream_started(step: int, attempt: int, where: Data) -> tuple[str, Data]:
    """A model begins to answer; a second one for the same step voids the deltas of the first."""
    return "stream_start", {"step": step, "attempt": attempt, "_metadata": where}


def stream_reset(step: int, attempt: int, where: Data) -> tuple[str, Data]:
    """Readers are to drop the deltas they have of this step: another attempt answers from the start."""
    return "stream_reset", {"step": step, "attempt": attempt, "_metadata": where}


def text_delta(step: int, chunk_index: int, content: str, attempt: int, where: Data) -> tuple[str, Data]:
    """A piece of a model's answer."""
    return "text_delta", _chunk(step, chunk_index, attempt, where, content=content)


def tool_call(step: int, chunk_index: int, call: Data, attempt: int, where: Data) -> tuple[str, Data]:
    """A tool call of a model's answer is complete."""
    return "tool_call", _chunk(step, chunk_index, attempt, where, call=call)


def _chunk(
    step: int,
    chunk_index: int,
    attempt: int,
    where: Data,
    *,
    content: str | None = None,
    call: Data | None = None,
) -> Data:
    return {
        "step": step,
        "chunk_index": chunk_index,
        "content": content,
        "tool_call": call,
        "usage": None,
        "attempt": attempt,
        "_metadata": where,
    }


def handed_off(step: int, agent_id: str, where: Data) -> tuple[str, Data]:
    """From the turn after `step` on, another agent speaks in the run's conversation."""
    return "agent_handoff", {"step": step, "agent_id": agent_id, "_metadata": where}


def tool_result(step: int, result: Data, where: Data) -> tuple[str, Data]:
    """A tool call has an outcome. `result` has the fields of a `ToolResult`."""
    return "tool_result", {
        "step": step,
        "tool_call_id": result["tool_call_call_id"],
        "tool_name": result["tool_name"],
        "status": result["status"],
        "result": result["result"],
        "error": result.get("error"),
        "_metadata": where,
    }


def topic_channel(project: str, topic: str) -> str:
    """Return the channel on which readers of a topic are told of new events."""
    return f"topic:{project}:{topic}"
