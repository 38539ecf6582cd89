"""Units on waits with an end in time: set a timer, end a wait, find what is due.

A step that waits is ``running`` without a seq; `ring_at` says when to look at it, `not_before` when it is
due.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Float,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    literal_column,
    select,
    tuple_,
    update,
)

from polos.journal.runs import FENCE, RUNS, WAKE_VALUES, R, fence
from polos.journal.statements import Part, Statement, Unit, now, one_of
from polos.journal.states import LIVE, QueueSlot, RunStatus, StepStatus
from polos.journal.steps import STEPS, S, insert_step

P = bindparam
MAX_DUE = 500  # at a time
LEASE_SECONDS = 2.0  # a sweeper that took a due wait and died keeps others from it for so long
WAITS: Any = literal_column("'running'")  # a literal: the index of waits is used for no parameter
_moment = select(now()).scalar_subquery()


def due_in(seconds: Any) -> Any:
    """Return a moment so many seconds from now, null for a negative number."""
    return case((seconds >= 0, now() + seconds), else_=literal_column("NULL"))


# -- timers

_due = case(
    (P("at", type_=Float) > 0, P("at", type_=Float)),
    else_=now() + P("seconds", type_=Float),
)
_SET_TIMER = Statement(
    insert_step(
        status=literal(StepStatus.RUNNING.value),
        tries=literal(0),
        ring_at=_due,
        not_before=_due,
    )
)
READ_SET = Statement(
    select(R.seq, S.not_before, S.not_before - now())
    .join_from(STEPS, RUNS, S.run_id == R.id)
    .where(S.run_id == P("run"), S.name == P("name"), *fence())
)


def set_timer(
    run_id: str, attempt: int, name: str, *, position: int, seconds: float = 0.0, at: float | None = None
) -> Unit:
    """Begin to wait for `seconds`, or until `at`; answers (seq, when due, seconds until then), or nothing."""
    params = {
        "run": run_id,
        "attempt": attempt,
        "name": name,
        "kind": "timer",
        "position": position,
        "seconds": seconds,
        "at": -1.0 if at is None else at,
    }
    parts = (Part(FENCE, params), Part(_SET_TIMER, params, guard=False), Part(READ_SET, params, guard=False))
    return Unit(parts, (run_id,), order=(run_id, name), answer=2, check=Part(READ_SET, params))


# -- ending a wait

_waiting_step = STEPS.alias("waiting_step")
_waiting_run = RUNS.alias("waiting_run")
run_lives = exists().where(_waiting_run.c.id == P("run"), one_of(_waiting_run.c.status, LIVE))
still_waits = and_(
    exists().where(
        _waiting_step.c.run_id == P("run"),
        _waiting_step.c.name == P("name"),
        _waiting_step.c.status == StepStatus.RUNNING.value,
        _waiting_step.c.seq.is_(None),
    ),
    run_lives,
)
WOKEN = (R.status, R.owner, R.name, R.route, R.deployment, R.slot)


@dataclass(frozen=True)
class Woken:
    """A run something was completed for: what it is now, and how to ring for it."""

    status: str
    owner: str | None
    name: str
    route: str
    deployment: str
    slot: str | None

    @property
    def wants_bell(self) -> bool:
        """Whether it was parked, and need not wait for its queue to admit it again."""
        return self.status == RunStatus.QUEUED and self.slot != QueueSlot.WANTED


def wake(*conditions: Any) -> Statement:
    """Return the statement that wakes the run of a step; answers the columns of `Woken`."""
    return Statement(
        update(RUNS).where(R.id == P("run"), *conditions).values(**WAKE_VALUES).returning(*WOKEN)
    )


ENDED_SO: dict[str, Any] = {
    "status": P("outcome"),
    "output": P("output"),
    "error": P("error"),
    "seq": select(R.seq).where(R.id == P("run")).scalar_subquery(),
    "ring_at": None,
    "finished_at": now(),
}
_THIS = (
    S.run_id == P("run"),
    S.name == P("name"),
    S.status == StepStatus.RUNNING.value,
    S.seq.is_(None),
)


def complete_waiting(*conditions: Any) -> Statement:
    """Return the statement that gives a waiting step its outcome."""
    return Statement(update(STEPS).where(*_THIS, run_lives, *conditions).values(**ENDED_SO))


_WAKE = wake(still_waits)
_END = complete_waiting()


def end_params(run_id: str, name: str, *, output: str | None, error: str | None, ring_again: float) -> Any:
    """Return the parameters of the statements that end a wait: a failure where there is an error."""
    outcome = StepStatus.COMPLETED if error is None else StepStatus.FAILED
    return {
        "run": run_id,
        "name": name,
        "outcome": outcome.value,
        "output": output,
        "error": error,
        "ring_again": ring_again,
    }


def end_wait(
    run_id: str,
    name: str,
    *,
    root_id: str,
    ring_again: float,
    output: str | None = None,
    error: str | None = None,
) -> Unit:
    """End a wait whose time has come, whoever says so; answers the columns of `Woken`, or nothing.

    Nothing means that it waits no more.
    """
    params = end_params(run_id, name, output=output, error=error, ring_again=ring_again)
    parts = (Part(_WAKE, params), Part(_END, params, guard=False))
    return Unit(parts, (run_id,), order=(root_id, run_id), locks_first=True)


_LET_GO_ON = Statement(update(STEPS).where(*_THIS).values(ring_at=None))


def let_go_on(run_id: str, name: str, *, root_id: str, ring_again: float) -> Unit:
    """Wake a run for the next try of a step; answers the columns of `Woken`, or nothing."""
    params = {"run": run_id, "name": name, "ring_again": ring_again}
    parts = (Part(_WAKE, params), Part(_LET_GO_ON, params, guard=False))
    return Unit(parts, (run_id,), order=(root_id, run_id), locks_first=True)


# -- finding what is due


@dataclass(frozen=True)
class DueWait:
    """A wait whose time has come."""

    run_id: str
    name: str
    kind: str
    began_at: float
    due_at: float
    root_id: str
    project: str
    is_live: bool


_chosen = STEPS.alias("chosen")
_its_run = RUNS.alias("its_run")


def _of_run(column: Any) -> Any:
    return select(column).where(_its_run.c.id == S.run_id).scalar_subquery()


_TAKE_DUE = Statement(
    update(STEPS)
    .where(
        tuple_(S.run_id, S.name).in_(
            select(_chosen.c.run_id, _chosen.c.name)
            .where(_chosen.c.status == WAITS, _chosen.c.ring_at <= _moment)
            .order_by(_chosen.c.ring_at)
            .limit(MAX_DUE)
            .with_for_update(skip_locked=True)
        ),
        S.status == WAITS,
    )
    .values(ring_at=now() + P("lease", type_=Float))
    .returning(
        S.run_id,
        S.name,
        S.kind,
        S.started_at,
        func.coalesce(S.not_before, S.ring_at),
        _of_run(_its_run.c.root_id),
        _of_run(_its_run.c.project),
        _of_run(_its_run.c.finished_at),
    )
)
READ_NEXT_DUE = Statement(
    select(S.ring_at - now()).where(S.status == WAITS, S.ring_at.is_not(None)).order_by(S.ring_at).limit(1)
)


def take_due() -> Unit:
    """Take up to MAX_DUE waits whose time has come, for a while; answers rows for `due_from`."""
    return Unit((Part(_TAKE_DUE, {"lease": LEASE_SECONDS}),), ())


# Runs that were rung a moment ago and are unclaimed, of any route; no more than asked for are counted. What
# nobody serves is rung again, and counts no more: it must not keep others waiting.
_rung = (
    select(R.id)
    .where(R.ring_at > _moment, R.ring_at <= _moment + P("ring_again", type_=Float), R.rings == 0)
    .limit(P("most", type_=R.attempt.type))
    .subquery()
)
COUNT_RUNG = Statement(select(func.count()).select_from(_rung))


def due_from(row: Any) -> DueWait:
    """Return a row that `take_due` answered."""
    run_id, name, kind, began_at, due_at, root_id, project, finished_at = row
    return DueWait(run_id, name, kind, began_at, due_at, root_id, project, is_live=finished_at is None)


READ_REMAINING = Statement(
    select(S.name, S.kind, S.started_at, func.coalesce(S.not_before, S.ring_at), S.ring_at - now()).where(
        S.run_id == P("run"), S.status == WAITS, S.ring_at.is_not(None)
    )
)
