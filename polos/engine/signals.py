"""What ends the execution of a run in this process without ending the run.

BaseExceptions: user code cannot swallow them.
"""

from __future__ import annotations

from polos.errors import WaitException


class Fenced(WaitException):
    """The run belongs to another attempt, or has ended: what this process still does counts nothing."""

    def __init__(self, run_id: str, *, cancelled: bool = False) -> None:
        super().__init__(f"run {run_id} is no longer executed here")
        self.cancelled = cancelled


class Parked(WaitException):
    """The run waits and its coroutine is thrown away; it will be replayed."""

    def __init__(self) -> None:
        super().__init__("the run is parked")


class Drained(WaitException):
    """The worker ends and hands the run back."""

    def __init__(self) -> None:
        super().__init__("the worker is shutting down")
