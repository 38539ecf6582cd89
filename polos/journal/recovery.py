"""What a sweeper does to rows: put back what a dead worker owned, ring what nobody claimed.

Rows are taken with SKIP LOCKED and a limit, so that sweepers never wait for one another or for a writer.
"""

from __future__ import annotations

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
    or_,
    select,
    tuple_,
    update,
)

from polos.journal.runs import RUNS, WAKE_VALUES, R, spent_running
from polos.journal.statements import Part, Statement, Unit, now, one_of
from polos.journal.states import QueueSlot, RunStatus, StepStatus
from polos.journal.steps import STEPS, S
from polos.journal.workers import D, W

P = bindparam
# Asked once a statement: an index cannot be searched for what a volatile function may answer row by row.
_MOMENT = select(now()).scalar_subquery()
MAX_ROWS = 200  # per duty and sweep: a bounded number of doorbells a second

_goes_on_elsewhere = or_(S.kind != "run", S.ring_at.is_not(None))  # no function of the run itself
_open = and_(one_of(S.status, (StepStatus.SCHEDULED, StepStatus.RUNNING)), _goes_on_elsewhere)
_under_way = exists().where(S.run_id == R.id, _open)
_turn_under_way = exists().where(S.run_id == R.id, _open, S.kind == "turn")
_only_waited = and_(_under_way, ~_turn_under_way)


def _some_runs(*conditions: Any) -> Any:
    chosen = RUNS.alias("chosen")
    moved = [condition(chosen.c) for condition in conditions]
    return R.id.in_(select(chosen.c.id).where(*moved).limit(MAX_ROWS).with_for_update(skip_locked=True))


_PUT_BACK_RUNS = Statement(
    update(RUNS)
    .where(
        _some_runs(lambda c: c.owner == P("worker"), lambda c: c.status == RunStatus.RUNNING.value),
        R.owner == P("worker"),
        R.status == RunStatus.RUNNING.value,
    )
    .values(
        status=RunStatus.QUEUED.value,
        owner=None,
        running_seconds=case((_only_waited, R.running_seconds), else_=spent_running()),
        claimed_at=None,
        crashes=R.crashes + case((_under_way, 0), else_=1),  # only waiting: not what killed the process
        ring_at=now(),
        rings=0,
    )
    .returning(R.id)
)


def _some_turns(*conditions: Any) -> Any:
    chosen = STEPS.alias("chosen")
    moved = [condition(chosen.c) for condition in conditions]
    return tuple_(S.run_id, S.name).in_(
        select(chosen.c.run_id, chosen.c.name).where(*moved).limit(MAX_ROWS).with_for_update(skip_locked=True)
    )


_PUT_BACK_TURNS = Statement(
    update(STEPS)
    .where(
        _some_turns(
            lambda c: c.owner == P("worker"),
            lambda c: c.status == StepStatus.RUNNING.value,
            lambda c: c.kind == "turn",
        ),
        S.status == StepStatus.RUNNING.value,
    )
    .values(
        status=StepStatus.SCHEDULED.value,
        owner=None,
        crashes=S.crashes + P("crashed", type_=S.crashes.type),
        ring_at=now(),
        rings=0,
    )
    .returning(S.run_id, S.name)
)


def put_back_runs(worker_id: str) -> Unit:
    """Queue again up to MAX_ROWS runs of a dead worker; answers their ids."""
    return Unit((Part(_PUT_BACK_RUNS, {"worker": worker_id}),), ())


def put_back_turns(worker_id: str, *, crashed: bool = True) -> Unit:
    """Schedule again the turns a worker executed that died or ends; answers (run id, step name)."""
    return Unit((Part(_PUT_BACK_TURNS, {"worker": worker_id, "crashed": int(crashed)}),), ())


_RING_SOON = Statement(
    update(RUNS)
    .where(
        _some_runs(
            lambda c: c.status == RunStatus.QUEUED.value,
            lambda c: c.ring_at > _MOMENT,
            lambda c: c.not_before.is_(None),
            lambda c: c.route == P("route"),
        )
    )
    .values(ring_at=now())
    .returning(R.id)
)
_RING_TURNS_SOON = Statement(
    update(STEPS)
    .where(
        _some_turns(
            lambda c: c.status == StepStatus.SCHEDULED.value,
            lambda c: c.ring_at > _MOMENT,
            lambda c: c.not_before.is_(None),
        )
    )
    .values(ring_at=now())
    .returning(S.run_id)
)


def ring_soon(route: str) -> Unit:
    """Make due at once what a dead worker of `route` may have popped and not claimed."""
    return Unit(
        (Part(_RING_SOON, {"route": route}, guard=False), Part(_RING_TURNS_SOON, {}, guard=False)), ()
    )


_parent = RUNS.alias("parent")
_RING_CHILDREN = Statement(
    update(RUNS)
    .where(
        _some_runs(
            lambda c: c.status == RunStatus.QUEUED.value,
            lambda c: c.ring_at > now(),
            lambda c: c.not_before.is_(None),
            lambda c: c.parent_id.in_(select(_parent.c.id).where(_parent.c.owner == P("worker"))),
        )
    )
    .values(ring_at=now())
    .returning(R.id)
)


def ring_children(worker_id: str) -> Unit:
    """Make due at once what runs of a dead worker started, of any route: it may have died before it rang."""
    return Unit((Part(_RING_CHILDREN, {"worker": worker_id}),), ())


_offered_names = select(D.name).where(D.worker_id == P("worker"))
_RING_OFFERED = Statement(
    update(RUNS)
    .where(
        _some_runs(
            lambda c: c.status == RunStatus.QUEUED.value,
            lambda c: c.ring_at > _MOMENT,
            lambda c: c.not_before.is_(None),
            lambda c: c.project == P("project"),
            lambda c: c.deployment == P("deployment"),
            lambda c: c.name.in_(_offered_names),
        )
    )
    .values(ring_at=now(), rings=0)
    .returning(R.id)
)


def ring_offered(worker_id: str, *, project: str, deployment: str) -> Unit:
    """Make due at once the runs that waited for a worker like this one; answers their ids."""
    params = {"worker": worker_id, "project": project, "deployment": deployment}
    return Unit((Part(_RING_OFFERED, params),), ())


def _backed_off(rings: Any) -> Any:
    """Return when to ring again: doubling from the first pause to the longest."""
    first, longest = P("ring_again", type_=Float), P("ring_again_max", type_=Float)
    doubled = first * (literal(1).bitwise_lshift(case((rings > 6, 6), else_=rings)))
    return now() + case((doubled > longest, longest), else_=doubled)


_DUE_RUNS = Statement(
    update(RUNS)
    .where(
        _some_runs(
            lambda c: c.ring_at <= _MOMENT,
            lambda c: c.status == RunStatus.QUEUED.value,
            lambda c: or_(c.slot.is_(None), c.slot == QueueSlot.HELD.value),  # or it is pending
        ),
        R.status == RunStatus.QUEUED.value,
    )
    .values(ring_at=_backed_off(R.rings), rings=R.rings + 1)
    .returning(R.id, R.name, R.route, R.deployment, R.parent_id)
)
_DUE_TURNS = Statement(
    update(STEPS)
    .where(
        _some_turns(lambda c: c.ring_at <= _MOMENT, lambda c: c.status == StepStatus.SCHEDULED.value),
        S.status == StepStatus.SCHEDULED.value,
    )
    .values(ring_at=_backed_off(S.rings), rings=S.rings + 1)
    .returning(
        S.run_id,
        S.name,
        select(R.name).where(R.id == S.run_id).scalar_subquery(),
        select(R.route).where(R.id == S.run_id).scalar_subquery(),
        select(R.deployment).where(R.id == S.run_id).scalar_subquery(),
    )
)


def due_runs(*, ring_again: float, ring_again_max: float) -> Unit:
    """Take the runs whose doorbell is due; answers (id, name, route, deployment, parent id)."""
    params = {"ring_again": ring_again, "ring_again_max": ring_again_max}
    return Unit((Part(_DUE_RUNS, params),), ())


def due_turns(*, ring_again: float, ring_again_max: float) -> Unit:
    """Take the turns whose doorbell is due; answers (run id, step, run name, route, deployment)."""
    params = {"ring_again": ring_again, "ring_again_max": ring_again_max}
    return Unit((Part(_DUE_TURNS, params),), ())


def _is_due(ring_at: Any) -> Any:
    """Ask an index for its first entry: whether any is due would be looked for in the whole table."""
    return select(func.min(ring_at)).where(ring_at.is_not(None)).scalar_subquery() <= now()


READ_ANY_DUE = Statement(select(_is_due(R.ring_at), _is_due(S.ring_at)))


def _lost_owners(owner: Any, *conditions: Any) -> Any:
    """Walk an index from owner to owner, however many rows each has; return those that are no workers."""
    first = (
        select(func.min(owner).label("owner"))
        .where(*conditions)
        .cte(f"{owner.table.name}_owners", recursive=True)
    )
    following = select(func.min(owner)).where(owner > first.c.owner, *conditions).scalar_subquery()
    owners = first.union_all(select(following).where(first.c.owner.is_not(None)))
    return select(owners.c.owner).where(owners.c.owner.is_not(None), ~exists().where(W.id == owners.c.owner))


READ_LOST_OWNERS = Statement(
    _lost_owners(R.owner, R.owner.is_not(None)).union(  # only running runs have an owner
        _lost_owners(S.owner, S.owner.is_not(None), one_of(S.status, [StepStatus.RUNNING]))
    )
)
COUNT_LIVE = Statement(select(func.count()).select_from(RUNS).where(R.finished_at.is_(None)))

_ended = exists().where(R.id == S.run_id, R.finished_at.is_not(None))
_DROP_TURNS = Statement(
    update(STEPS)
    .where(
        _some_turns(lambda c: c.ring_at <= _MOMENT, lambda c: c.status == StepStatus.SCHEDULED.value),
        S.status == StepStatus.SCHEDULED.value,
        _ended,
    )
    .values(status=StepStatus.FAILED.value, error="the run had ended", ring_at=None, finished_at=now())
    .returning(S.run_id, S.name)
)


def drop_turns_of_ended_runs() -> Unit:
    """Close turns nobody needs any more; answers (run id, step name)."""
    return Unit((Part(_DROP_TURNS, {}),), ())


_WAKE_OVERDUE = Statement(
    update(RUNS)
    .where(
        R.status == literal_column("'waiting'"),
        R.claimed_at.is_not(None),
        R.running_seconds + (now() - R.claimed_at) > R.run_timeout_seconds,
    )
    .values(**WAKE_VALUES)
    .returning(R.id)
)


def wake_overdue() -> Unit:
    """Queue parked runs whose time a turn under way has used up: who claims one ends it."""
    return Unit((Part(_WAKE_OVERDUE, {"ring_again": 0.0}),), ())
