"""Whether anybody works: what has waited for a worker for long, and who lives and executes."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Float, bindparam, case, exists, func, literal, or_, select

from polos.journal.database import Connection
from polos.journal.runs import RUNS, R
from polos.journal.statements import Statement, now
from polos.journal.states import RunStatus, StepStatus
from polos.journal.steps import STEPS, S
from polos.journal.workers import D, W

P = bindparam
_is_live = (W.draining == 0) & (W.beat_at > now() - P("silence", type_=Float))
_late = now() - P("patience", type_=Float)
_is_offered = exists().where(
    W.project == R.project,
    W.deployment == R.deployment,
    _is_live,
    D.worker_id == W.id,
    D.name == R.name,
)
_counts = (func.count(), func.coalesce(func.sum(case((_is_offered, 1), else_=0)), 0))
# A doorbell that is due and not rung: no sweeper lives. One that was rung often: nobody comes.
_LATE_RUNS = Statement(
    select(*_counts).where(
        R.ring_at.is_not(None),
        R.status == RunStatus.QUEUED.value,
        or_(R.ring_at < _late, R.rings >= P("rings")),
    )
)
_LATE_TURNS = Statement(
    select(*_counts)
    .join_from(STEPS, RUNS, R.id == S.run_id)
    .where(
        S.ring_at.is_not(None),
        S.status == StepStatus.SCHEDULED.value,
        or_(S.ring_at < _late, S.rings >= P("rings")),
    )
)
_LIVE_WORKERS = Statement(select(func.count(), literal(0)).where(_is_live))
_EXECUTING = Statement(
    select(W.id)
    .where(
        _is_live,
        or_(
            exists().where(R.owner == W.id, R.status == RunStatus.RUNNING.value),
            exists().where(S.owner == W.id, S.status == StepStatus.RUNNING.value),
        ),
    )
    .limit(1)
)


@dataclass(frozen=True)
class Progress:
    """How work stands, in all projects.

    Attributes:
        late: Runs and turns that nobody has taken for long.
        late_offered: Those of them that a live worker offers to execute.
        is_executing: Whether any live worker owns a run or a turn.
    """

    late: int
    late_offered: int
    live_workers: int
    is_executing: bool


def read_progress(
    journal: Connection, *, patience_seconds: float, rings: int, silence_limit_seconds: float
) -> Progress:
    """Return how work stands; what was rung `rings` times, or not at all for `patience_seconds`, is late."""
    live = {"silence": silence_limit_seconds}
    late = {"patience": patience_seconds, "rings": rings, **live}
    [[runs, runs_offered]] = journal.read(_LATE_RUNS, late)
    [[turns, turns_offered]] = journal.read(_LATE_TURNS, late)
    [[workers, _]] = journal.read(_LIVE_WORKERS, live)
    return Progress(runs + turns, runs_offered + turns_offered, workers, bool(journal.read(_EXECUTING, live)))
