"""Queues with limits: declare and change them, and take what is under way into account when they get some."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    bindparam,
    case,
    literal,
    literal_column,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.runs import RUNS, R
from polos.journal.statements import Part, Row, Statement, Unit, now, one_of
from polos.journal.states import QueueSlot, RunStatus
from polos.journal.tables import Deployment, QueueLimits

Q = QueueLimits.__table__.c  # type: ignore[attr-defined]
QUEUES = QueueLimits.__table__  # type: ignore[attr-defined]
DEPLOYMENT = Deployment.__table__.c  # type: ignore[attr-defined]
DEPLOYMENTS = Deployment.__table__  # type: ignore[attr-defined]
P = bindparam
SLOT = literal_column  # slots stand in the text, so that both databases see which index serves


@dataclass(frozen=True)
class Limits:
    """What a queue allows. None: as much as there is.

    Attributes:
        concurrency_limit: Runs at once with one concurrency key.
        rate_limit: Runs begun in `rate_seconds`, whatever their key.
        hold_while_waiting: A run keeps its slot while it waits.
    """

    concurrency_limit: int | None = None
    rate_limit: int | None = None
    rate_seconds: float | None = None
    hold_while_waiting: bool = False

    def smallest(self, other: Limits) -> Limits:
        """Return the limits that keep within both."""
        rates = [limits for limits in (self, other) if limits.rate_limit]
        slowest = min(
            rates, key=lambda limits: (limits.rate_limit or 1) / (limits.rate_seconds or 1), default=self
        )
        return Limits(
            min(
                (n for n in (self.concurrency_limit, other.concurrency_limit) if n is not None), default=None
            ),
            slowest.rate_limit,
            slowest.rate_seconds,
            self.hold_while_waiting or other.hold_while_waiting,
        )

    def columns(self) -> dict[str, Any]:
        """Return the values by column name."""
        return {**asdict(self), "hold_while_waiting": int(self.hold_while_waiting)}


@dataclass(frozen=True)
class QueueState:
    """A queue with limits, as it stands. `next_at`: earliest next admission under a rate limit."""

    name: str
    concurrency_limit: int | None
    rate_limit: int | None
    rate_seconds: float | None
    next_at: float | None
    hold_while_waiting: int
    is_paused: int

    @property
    def is_limited(self) -> bool:
        """Whether new runs of it are pending until they are admitted."""
        return bool(self.concurrency_limit is not None or self.rate_limit is not None or self.is_paused)

    @property
    def spacing_seconds(self) -> float | None:
        """Time between two admissions, None without a rate limit."""
        return None if self.rate_limit is None else (self.rate_seconds or 1.0) / self.rate_limit


_STATE = [Q[name] for name in QueueState.__dataclass_fields__]
_here = (Q.project == P("project"), Q.deployment == P("deployment"))
READ_QUEUES = Statement(select(*_STATE).where(*_here).order_by(Q.name))


def queue_state(row: Row) -> QueueState:
    """Return a row of READ_QUEUES."""
    return QueueState(*row)


_new = {
    "project": P("project"),
    "deployment": P("deployment"),
    "name": P("queue"),
    **{name: P(name, type_=Q[name].type) for name in Limits().columns()},
    "is_paused": P("is_paused", type_=Integer),
    "declared": P("declared", type_=Q.declared.type),
    "created_at": now(),
}
_insert = upsert(QUEUES).values(**_new)
_KEY = [Q.project, Q.deployment, Q.name]
_limits = {name: _insert.excluded[name] for name in (*Limits().columns(), "declared")}
_DECLARE = Statement(
    _insert.on_conflict_do_update(
        index_elements=_KEY,
        set_=_limits,
        where=Q.declared.is_distinct_from(_insert.excluded.declared),
    ).returning(Q.name)
)
_ENSURE = Statement(_insert.on_conflict_do_nothing().returning(Q.name))
_SET = Statement(
    _insert.on_conflict_do_update(
        index_elements=_KEY,
        set_={
            name: case((P(f"sets_{name}", type_=Integer) == 1, _insert.excluded[name]), else_=Q[name])
            for name in (*Limits().columns(), "is_paused")
        },
    ).returning(*_STATE)
)

_of_queue = (
    R.project == P("project"),
    R.deployment == P("deployment"),
    R.queue == P("queue"),
    select(literal(1))
    .where(
        *_here,
        Q.name == P("queue"),
        or_(Q.concurrency_limit.is_not(None), Q.rate_limit.is_not(None), Q.is_paused == 1),
    )
    .exists(),
)


_near = RUNS.alias("near")


def _some(*conditions: ColumnElement[bool]) -> Any:
    here = (
        _near.c.project == P("project"),
        _near.c.deployment == P("deployment"),
        _near.c.queue == P("queue"),
    )
    return select(_near.c.id).where(*here, *conditions)


# Each by an index over few rows: what runs, what is rung or delayed, what is parked, what is pending.
_concerned = union_all(
    _some(_near.c.owner.is_not(None)),
    _some(_near.c.ring_at.is_not(None)),
    _some(one_of(_near.c.status, [RunStatus.WAITING])),
    _some(_near.c.slot == SLOT("'deferred'"), _near.c.ring_at.is_(None)),
)
# One statement, so that none is missed that moves from one of these to another meanwhile.
_TAKE_IN = Statement(
    update(RUNS)
    .where(
        *_of_queue,
        R.id.in_(_concerned),
        or_(R.slot.is_(None), R.slot == SLOT("'deferred'")),
        one_of(R.status, [RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING]),
    )
    .values(
        slot=case(
            (R.slot == SLOT("'deferred'"), QueueSlot.WANTED.value),
            (R.status == RunStatus.WAITING.value, QueueSlot.RELEASED.value),
            else_=QueueSlot.HELD.value,
        )
    )
)
ADMISSION_CHANGED = Statement(
    update(DEPLOYMENTS)
    .where(DEPLOYMENT.project == P("project"), DEPLOYMENT.name == P("deployment"))
    .values(admissions=P("token", type_=Integer))
)


def new_token() -> int:
    """Return a value of the admission fence that nobody else uses."""
    return random.getrandbits(31)


def _unit(statement: Statement, params: dict[str, Any]) -> Unit:
    """Return a change of limits; slots are counted anew by whoever was about to admit."""
    params = {**params, "token": new_token()}
    parts = [Part(taken_in, params, guard=False) for taken_in in (_TAKE_IN, ADMISSION_CHANGED)]
    return Unit((Part(statement, params, guard=False), *parts), ())


def _params(project: str, deployment: str, name: str, limits: Limits) -> dict[str, Any]:
    return {
        "project": project,
        "deployment": deployment,
        "queue": name,
        **limits.columns(),
        "is_paused": 0,
        "declared": None,
    }


def declare_queue(project: str, deployment: str, name: str, limits: Limits) -> Unit:
    """Give a queue the limits that code declares, if they are others than it declared last.

    What a person has set since stands until then. Answers (name), or nothing.
    """
    params = _params(project, deployment, name, limits)
    return _unit(_DECLARE, {**params, "declared": json.dumps(limits.columns())})


def ensure_queue(project: str, deployment: str, name: str, limits: Limits) -> Unit:
    """Create a queue with limits if there is none of that name; answers (name), or nothing."""
    return _unit(_ENSURE, _params(project, deployment, name, limits))


def set_queue(project: str, deployment: str, name: str, changes: dict[str, Any]) -> Unit:
    """Change some columns of a queue, which is made if it is missing; answers its `QueueState`."""
    params = {**_params(project, deployment, name, Limits()), **changes}
    sets = {f"sets_{column}": int(column in changes) for column in (*Limits().columns(), "is_paused")}
    return _unit(_SET, {**params, **sets})


def smallest_limits(declared: Sequence[tuple[str, Limits]]) -> dict[str, Limits]:
    """Return the limits of each queue that several definitions may share: the smallest of each."""
    found: dict[str, Limits] = {}
    for name, limits in declared:
        found[name] = found[name].smallest(limits) if name in found else limits
    return found
