"""The public record of a run: what `get_execution` returns, in the field names of the API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from polos import serialization

_SAME = (
    "id",
    "status",
    "error",
    "session_id",
    "user_id",
    "cancelled_by",
    "run_timeout_seconds",
)
_RENAMED = {
    "workflow_id": "name",
    "workflow_type": "kind",
    "deployment_id": "deployment",
    "assigned_to_worker": "owner",
    "parent_execution_id": "parent_id",
    "root_execution_id": "root_id",
    "root_workflow_id": "root_name",
    "retry_count": "retries",
    "queue_name": "queue",
    "output_schema_name": "output_schema",
    "project_id": "project",
}
_TIMES = {"created_at": "created_at", "started_at": "started_at", "completed_at": "finished_at"}
_USED = ("input_tokens", "output_tokens", "total_tokens", "cached_tokens", "calls", "unpriced_calls", "cost")
_VALUES = {
    "payload": "input",
    "result": "output",
    "initial_state": "initial_state",
    "final_state": "final_state",
}
RESULT_NAMES = (
    "status",
    "result",
    "error",
    "created_at",
    "completed_at",
    "parent_execution_id",
    "root_workflow_id",
    "root_execution_id",
    "output_schema_name",
    "step_key",
)  # of a record: what a caller who wants the result asks for


def record_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the run table as plain JSON data; times in RFC 3339."""
    cancelled = row["status"] == "cancelled" or row["cancelled_by"] is not None
    step = row["parent_step"]
    return {
        **{name: row[name] for name in _SAME},
        **{name: row[column] for name, column in _RENAMED.items()},
        **{name: api_time(row[column]) for name, column in _TIMES.items()},
        **{name: _value(row[column]) for name, column in _VALUES.items()},
        "step_key": step.removeprefix("$") if step else None,
        "concurrency_key": row["concurrency_key"] or None,
        "batch_id": None,
        "cancelled_at": api_time(row["finished_at"]) if cancelled else None,
        "usage": {name: row[name] for name in _USED},
    }


def api_time(seconds: float | None) -> str | None:
    """Return seconds since the epoch as RFC 3339 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def _value(text: str | None) -> Any:
    return None if text is None else serialization.loads(text)
