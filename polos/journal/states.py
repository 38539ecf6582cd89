"""The states of runs and steps, and the only moves between them."""

from enum import StrEnum


class RunStatus(StrEnum):
    """Where a run is."""

    QUEUED = "queued"  # a doorbell is promised; nobody owns it
    RUNNING = "running"  # a worker owns it: executes it or keeps it resident
    WAITING = "waiting"  # parked; whoever completes something for it makes it queued
    BLOCKED = "blocked"  # needs a person
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepStatus(StrEnum):
    """Where a step is."""

    SCHEDULED = "scheduled"  # a turn whose doorbell is promised
    RUNNING = "running"  # a turn that a worker executes, or a child run under way
    COMPLETED = "completed"
    FAILED = "failed"


class QueueSlot(StrEnum):
    """What a run needs of its queue before it may be rung. A run without one needs nothing.

    A queued run that is deferred or wants a slot, and has no time to ring, is *pending*.
    """

    DEFERRED = "deferred"  # enough doorbells of its route are outstanding: rung later, needs no slot
    WANTED = "wanted"  # its queue has limits: it waits for a slot
    HELD = "held"  # has a slot, until it ends or is parked
    RELEASED = "released"  # parked; woken, it wants a slot again


TERMINAL = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED})
LIVE = frozenset(RunStatus) - TERMINAL

RUN_MOVES: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.QUEUED: frozenset({RunStatus.RUNNING, RunStatus.FAILED, RunStatus.CANCELLED}),
    RunStatus.RUNNING: frozenset(
        {
            RunStatus.QUEUED,  # owner lost or drained, or a retry with `not_before`
            RunStatus.WAITING,  # parked
            RunStatus.BLOCKED,  # replay deviated
            RunStatus.COMPLETED,
            RunStatus.FAILED,
            RunStatus.CANCELLED,
        }
    ),
    RunStatus.WAITING: frozenset({RunStatus.QUEUED, RunStatus.CANCELLED}),
    RunStatus.BLOCKED: frozenset({RunStatus.QUEUED, RunStatus.CANCELLED}),
    RunStatus.COMPLETED: frozenset(),
    RunStatus.FAILED: frozenset({RunStatus.QUEUED}),  # a person lets it go on
    RunStatus.CANCELLED: frozenset({RunStatus.QUEUED}),
}

STEP_MOVES: dict[StepStatus, frozenset[StepStatus]] = {
    StepStatus.SCHEDULED: frozenset({StepStatus.RUNNING, StepStatus.FAILED}),
    StepStatus.RUNNING: frozenset(
        {
            StepStatus.SCHEDULED,  # owner lost, or a retry with `not_before`
            StepStatus.COMPLETED,
            StepStatus.FAILED,
        }
    ),
    StepStatus.COMPLETED: frozenset(),
    StepStatus.FAILED: frozenset({StepStatus.SCHEDULED, StepStatus.RUNNING}),  # taken back by such a run
}


def runs_before(status: RunStatus) -> list[str]:
    """Return the states a run may be in just before it moves to `status`, for a WHERE clause."""
    return sorted(str(origin) for origin, targets in RUN_MOVES.items() if status in targets)
