"""What whoever admits pending runs reads, and the unit that admits some: nobody else turns pending into rung.

Slots are counted over rows. A change of the deployment's fence makes each admission one of a kind: whoever
read before another's admission is refused and reads again, so that limits hold exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    Alias,
    ColumnElement,
    Float,
    Integer,
    Text,
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

from polos.journal.creating import is_deferred, is_rung
from polos.journal.queues import DEPLOYMENT, DEPLOYMENTS, QUEUES, Q, new_token
from polos.journal.runs import RUNS, R, ringing_from_now
from polos.journal.statements import Part, Statement, Unit, latest, now, one_of, texts_of
from polos.journal.states import QueueSlot, RunStatus
from polos.journal.workers import DEFINITIONS, WORKERS, D, W

P = bindparam
MAX_LANES = 1000  # looked at in one pass; others have their turn in the next
MAX_RIPE = 500  # runs whose delay is over, taken in one pass
_MOMENT = select(now()).scalar_subquery()  # an index cannot be searched for what is asked row by row


class Candidate(NamedTuple):
    """A pending run."""

    id: str
    name: str
    route: str
    queue: str
    concurrency_key: str
    priority: int
    parent_id: str | None
    attempt: int
    created_at: float

    @property
    def has_begun(self) -> bool:
        """Whether it belongs to work that is under way."""
        return self.parent_id is not None or self.attempt > 0


class Admitted(NamedTuple):
    """A run that was admitted: it wants to be rung."""

    id: str
    name: str
    route: str
    parent_id: str | None
    attempt: int


def _is_wanted(table: Any) -> tuple[ColumnElement[bool], ...]:
    return (table.c.slot == literal_column("'wanted'"), table.c.ring_at.is_(None))


def _here(table: Any) -> tuple[ColumnElement[bool], ...]:
    return (table.c.project == P("project"), table.c.deployment == P("deployment"))


READ_FENCE_OF_ADMISSION = Statement(
    select(DEPLOYMENT.admissions, now()).where(
        DEPLOYMENT.project == P("project"), DEPLOYMENT.name == P("deployment")
    )
)
READ_ANY_PENDING = Statement(
    select(exists().where(*is_deferred(RUNS), *_here(RUNS)), exists().where(*_is_wanted(RUNS), *_here(RUNS)))
)
_unclaimed = case((one_of(R.status, [RunStatus.QUEUED]) & (R.attempt == 0), 1), else_=0)
_held = (R.slot == literal_column("'held'"), *_here(RUNS))
_HELD = select(R.queue, R.concurrency_key, func.count(), func.sum(_unclaimed))
READ_HELD = Statement(_HELD.where(*_held).group_by(R.queue, R.concurrency_key))
READ_RUNG = Statement(
    select(R.queue, R.concurrency_key, func.count())
    .where(*is_rung(RUNS), *_here(RUNS), R.route == P("route"))
    .group_by(R.queue, R.concurrency_key)
)
READ_OFFERED = Statement(
    select(D.name, func.count())
    .join_from(WORKERS, DEFINITIONS, D.worker_id == W.id)
    .where(
        W.project == P("project"),
        W.deployment == P("deployment"),
        W.draining == 0,
        W.beat_at > now() - P("silence", type_=Float),
    )
    .group_by(D.name)
)


def _lanes(condition: Any, *names: str) -> Statement:
    """Walk an index from lane to lane, however many runs each has, the greatest first."""

    def lane_of(table: Any) -> list[Any]:
        return [table.c[name] for name in names]

    def greatest(table: Alias, *conditions: Any) -> Any:
        return (
            select(table.c.id)
            .where(*condition(table), *_here(table), *conditions)
            .order_by(*(column.desc() for column in lane_of(table)))
            .limit(literal(1))
        )

    def below(last: Sequence[Any], lane: CTE) -> Any:
        """Return the greatest run of the next lane: that with most in common with the last one.

        Not by comparing rows: SQLite would walk through all runs of the last lane.
        """
        found = []
        for length in reversed(range(len(names))):
            table = RUNS.alias(f"lower_{length}")
            columns = lane_of(table)
            same = [column == value for column, value in zip(columns[:length], last[:length], strict=True)]
            found.append(
                greatest(table, *same, columns[length] < last[length]).correlate(lane).scalar_subquery()
            )
        return func.coalesce(*found)

    start = RUNS.alias("start")
    above = tuple_(*lane_of(start)) < tuple_(*(P(f"after_{name}", type_=R[name].type) for name in names))
    is_first = P("is_first", type_=Integer) == 1
    head, heads = RUNS.alias("head"), RUNS.alias("heads")
    lane = (
        select(*lane_of(head), literal(1).label("place"))
        .where(head.c.id == greatest(start, or_(is_first, above)).scalar_subquery())
        .cte("lane", recursive=True)
    )
    # Expressions, for SQLite searches its index for those only, not for columns with types of their own.
    last = [func.coalesce(column, 0 if column.name == "priority" else "") for column in lane_of(lane)]
    more = (
        select(*lane_of(heads), lane.c.place + 1)
        .join_from(lane, heads, heads.c.id == below(last, lane))
        .where(lane.c.place < MAX_LANES)
    )
    walked = lane.union_all(more)
    return Statement(select(*lane_of(walked)))


DEFERRED_LANE = ("route", "priority", "queue", "concurrency_key")
WANTED_LANE = ("queue", "concurrency_key")
READ_DEFERRED_LANES = _lanes(is_deferred, *DEFERRED_LANE)
READ_WANTED_LANES = _lanes(_is_wanted, *WANTED_LANE)


def lanes_after(names: Sequence[str], last: Sequence[Any] | None) -> dict[str, Any]:
    """Return the parameters of a read of lanes that begins behind `last`, None for the first."""
    blank: Sequence[Any] = [0 if name == "priority" else "" for name in names]
    after = blank if last is None else last
    return {"is_first": int(last is None), **{f"after_{n}": v for n, v in zip(names, after, strict=True)}}


_CANDIDATE = [R[name] for name in Candidate._fields]
_is_offered = or_(R.parent_id.is_not(None), R.name.op("IN")(texts_of(P("offered", type_=Text))))
READ_DEFERRED = Statement(
    select(*_CANDIDATE)
    .where(
        *is_deferred(RUNS),
        *_here(RUNS),
        *(R[name] == P(name, type_=R[name].type) for name in DEFERRED_LANE),
        _is_offered,
    )
    .order_by(R.created_at)
    .limit(P("most", type_=Integer))
)
READ_WANTED = Statement(
    select(*_CANDIDATE)
    .where(
        *_is_wanted(RUNS),
        *_here(RUNS),
        *(R[name] == P(name, type_=R[name].type) for name in WANTED_LANE),
        or_(P("any", type_=Integer) == 1, R.attempt > 0, R.parent_id.is_not(None)),
        _is_offered,
    )
    .order_by(R.priority.desc(), R.created_at)
    .limit(P("most", type_=Integer))
)

_fence = (
    update(DEPLOYMENTS)
    .where(
        DEPLOYMENT.project == P("project"),
        DEPLOYMENT.name == P("deployment"),
        DEPLOYMENT.admissions == P("seen", type_=Integer),
    )
    .values(admissions=P("token", type_=Integer))
)
_FENCE = Statement(_fence)
_is_ours = exists().where(
    DEPLOYMENT.project == P("project"),
    DEPLOYMENT.name == P("deployment"),
    DEPLOYMENT.admissions == P("token", type_=Integer),
)
_pending = one_of(R.slot, [QueueSlot.DEFERRED, QueueSlot.WANTED])
_ADMIT = Statement(
    update(RUNS)
    .where(
        R.id.op("IN")(texts_of(P("runs", type_=Text))),
        one_of(R.status, [RunStatus.QUEUED]),
        _pending,
        R.ring_at.is_(None),
        _is_ours,
    )
    .values(
        slot=case((R.slot == QueueSlot.WANTED.value, QueueSlot.HELD.value), else_=None),
        ring_at=ringing_from_now(),
        rings=0,
    )
    .returning(*(R[name] for name in Admitted._fields))
)
_spacing = P("spacing", type_=Float)
_PACE = Statement(
    update(QUEUES)
    .where(*_here(QUEUES), Q.name == P("queue"), _is_ours)
    # A tenth of the spacing may be made up for: nobody wakes on the dot.
    .values(
        next_at=latest(func.coalesce(Q.next_at, 0.0), now() - 0.1 * _spacing)
        + _spacing * P("count", type_=Integer)
    )
)


class Pace(NamedTuple):
    """How many runs of a queue with a rate limit are begun, and the time that each takes of it."""

    queue: str
    runs: int
    spacing_seconds: float


def admit_runs(
    run_ids: Sequence[str],
    *,
    project: str,
    deployment: str,
    seen: int,
    ring_again: float,
    paces: Sequence[Pace] = (),
) -> Unit:
    """Admit pending runs, unless anybody has since `seen` was read; answers `Admitted` for each that was."""
    params: dict[str, Any] = {
        "project": project,
        "deployment": deployment,
        "seen": seen,
        "token": new_token(),
        "runs": json.dumps(list(run_ids)),
        "ring_again": ring_again,
    }
    paced = [
        Part(
            _PACE,
            {**params, "queue": pace.queue, "count": pace.runs, "spacing": pace.spacing_seconds},
            False,
        )
        for pace in paces
    ]
    return Unit(
        (Part(_FENCE, params), *paced, Part(_ADMIT, params, guard=False)),
        tuple(run_ids),
        answer=1 + len(paced),
        locks_first=True,
    )


_ripe = RUNS.alias("ripe")
_RIPEN = Statement(
    update(RUNS)
    .where(
        R.id.in_(
            select(_ripe.c.id)
            .where(
                _ripe.c.ring_at <= _MOMENT,
                # Expressions, or SQLite reads all runs of the project instead of the few with a `ring_at`.
                func.coalesce(_ripe.c.project, "") == P("project"),
                func.coalesce(_ripe.c.deployment, "") == P("deployment"),
                one_of(_ripe.c.slot, [QueueSlot.DEFERRED, QueueSlot.WANTED]),
                one_of(_ripe.c.status, [RunStatus.QUEUED]),
            )
            .limit(literal(MAX_RIPE))
            .with_for_update(skip_locked=True)
        )
    )
    .values(ring_at=None, not_before=None)
    .returning(R.id)
)


def ripen(project: str, deployment: str) -> Unit:
    """Make pending those runs whose delay is over; answers their ids."""
    return Unit((Part(_RIPEN, {"project": project, "deployment": deployment}),), ())


def offered_text(names: Mapping[str, int]) -> str:
    """Return the names that live workers offer, for reads of candidates."""
    return json.dumps(sorted(names))
