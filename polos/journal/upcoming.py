"""When the next thing is due by the database's clock: for whoever turns that clock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from polos.journal.runs import R
from polos.journal.statements import Statement, now
from polos.journal.states import RunStatus, StepStatus
from polos.journal.steps import S
from polos.journal.tables import Event, QueueLimits, Schedule, Trigger

Q = QueueLimits.__table__.c  # type: ignore[attr-defined]
SC = Schedule.__table__.c  # type: ignore[attr-defined]
T = Trigger.__table__.c  # type: ignore[attr-defined]
E = Event.__table__.c  # type: ignore[attr-defined]


def _next(moment: Any, *conditions: Any) -> Any:
    return select(func.min(moment)).where(moment > now(), *conditions).scalar_subquery()


_first_unread = (
    select(func.min(E.created_at))
    .where(E.project == T.project, E.topic == T.topic, E.number > T.cursor)
    .scalar_subquery()
)

READ_UPCOMING = Statement(
    select(
        now(),
        _next(S.ring_at, S.status == StepStatus.RUNNING.value),  # timers, and waits that have a limit
        _next(S.not_before, S.status == StepStatus.SCHEDULED.value),  # turns that are tried again later
        _next(R.not_before, R.status == RunStatus.QUEUED.value),
        _next(
            R.claimed_at + R.run_timeout_seconds - R.running_seconds,
            R.status == RunStatus.WAITING.value,
            R.claimed_at.is_not(None),
        ),
        _next(SC.next_at, SC.status == "active"),
        _next(Q.next_at),
        _next(_first_unread + T.batch_timeout_seconds, T.is_active == 1),
    )
)
"""Answers the time, and the moments after it at which something of each kind is due; None for no such."""
