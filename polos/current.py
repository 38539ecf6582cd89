"""Which run and step the current task belongs to, if any; and the refusal to start runs past its journal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol


class RunningContext(Protocol):
    """What this module needs of the context that user code receives."""

    @property
    def execution_id(self) -> str:
        """Id of the running execution."""
        ...

    @property
    def session_id(self) -> str | None:
        """Session the execution belongs to."""
        ...

    @property
    def user_id(self) -> str | None:
        """User the execution acts for."""
        ...


# A variable of the task, not of the process: each run, and each thread it starts, sees its own.
current_context: ContextVar[RunningContext | None] = ContextVar("polos_current_context", default=None)


@dataclass(frozen=True)
class Place:
    """What is being executed, for log lines. The step is named as people see it."""

    run_id: str
    step: str | None = None


current_place: ContextVar[Place | None] = ContextVar("polos_current_place", default=None)


@contextmanager
def at_place(run_id: str, step: str | None = None) -> Iterator[None]:
    """Have log lines say that they come from this run and step."""
    token = current_place.set(Place(run_id, step))
    try:
        yield
    finally:
        current_place.reset(token)


def inside_run() -> bool:
    """Return whether the calling code runs inside an execution."""
    return current_context.get() is not None


def refuse_inside_run(what: str) -> None:
    """Raise when called inside an execution, where `what` would be repeated on every replay.

    Raises:
        RuntimeError: An execution is running this code; the message names the step to use instead.
    """
    context = current_context.get()
    if context is not None:
        raise RuntimeError(
            f"{what} was called inside run {context.execution_id!r}, where each replay would start it again: "
            "use ctx.step.invoke_and_wait(...) or ctx.step.agent_invoke_and_wait(...), "
            "or ctx.step.invoke(...) to go on without waiting"
        )
