"""The handle of a run: what starting one returns, and how to follow it through a client."""

from typing import Any, Protocol

from pydantic import BaseModel


class Follower(Protocol):
    """What a handle needs of a client."""

    async def get_result(self, execution_id: str) -> dict[str, Any]:
        """Return where a run stands, its result rebuilt."""

    async def cancel_execution(self, execution_id: str) -> bool:
        """Cancel a run."""


class ExecutionHandle(BaseModel):
    """A run that was started. Serialisable; works with any client of the same journal."""

    id: str
    workflow_id: str | None = None
    created_at: str | None = None
    parent_execution_id: str | None = None
    root_workflow_id: str | None = None
    root_execution_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    step_key: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the handle as JSON data."""
        return self.model_dump(mode="json")

    async def get(self, client: Follower) -> dict[str, Any]:
        """Return where the run stands.

        Keys: ``status``, ``result`` (rebuilt as the class it had, where that is known), ``error``,
        ``created_at``, ``completed_at``, ``parent_execution_id``, ``root_workflow_id``,
        ``root_execution_id``, ``output_schema_name``, ``step_key``.
        """
        return await client.get_result(self.id)

    async def cancel(self, client: Follower) -> bool:
        """Cancel the run and all it started; False when it has ended or does not exist."""
        return await client.cancel_execution(self.id)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self if value is not None)
        return f"ExecutionHandle({fields})"
