"""Units on runs: create, claim, fence, park, hand back, retry, finish."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Float,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    not_,
    or_,
    select,
    update,
)

from polos.journal.statements import Part, Row, Statement, Unit, now, one_of
from polos.journal.states import LIVE, QueueSlot, RunStatus, runs_before
from polos.journal.tables import QueueLimits, Run

R = Run.__table__.c  # type: ignore[attr-defined]
RUNS = Run.__table__  # type: ignore[attr-defined]
Q = QueueLimits.__table__.c  # type: ignore[attr-defined]
P = bindparam
ANY_CRASHES = 2**31 - 1


@dataclass(frozen=True)
class NewRun:
    """A run to create. Values are JSON text."""

    id: str
    project: str
    deployment: str
    kind: str
    name: str
    queue: str
    route: str
    root_id: str
    root_name: str
    session_id: str | None = None
    user_id: str | None = None
    caller: str | None = None
    concurrency_key: str | None = None
    priority: int = 5
    idempotency_key: str | None = None
    debounce_key: str | None = None
    schedule_id: str | None = None
    hops: int = 0
    forked_from: str | None = None
    input: str | None = None
    initial_state: str | None = None
    run_timeout_seconds: float | None = None
    usage_limits: str | None = None
    parent_id: str | None = None
    parent_step: str | None = None
    awaited: int = 0
    depth: int = 0

    def columns(self) -> dict[str, Any]:
        """Return the values by column name."""
        values = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        return {**values, "concurrency_key": self.concurrency_key or ""}


@dataclass(frozen=True)
class Claim:
    """A run this worker now owns, with everything its coordinator starts from.

    Attributes:
        keeps_slot: It keeps its slot while it waits, for its queue says so.
        leaves_backlog: Runs of its route are deferred until claims such as this one make room.
    """

    id: str
    attempt: int
    seq: int
    wakes: int
    project: str
    deployment: str
    kind: str
    name: str
    caller: str | None
    parent_id: str | None
    parent_step: str | None
    awaited: int
    root_id: str
    root_name: str
    depth: int
    session_id: str | None
    user_id: str | None
    route: str
    input: str | None
    initial_state: str | None
    run_timeout_seconds: float | None
    running_seconds: float
    crashes: int
    retries: int
    created_at: float
    started_event: int | None
    retried_seq: int | None
    forked_from: str | None
    queue: str
    concurrency_key: str | None
    priority: int
    slot: str | None
    keeps_slot: bool
    leaves_backlog: bool
    usage_limits: str | None = None

    @property
    def begins(self) -> bool:
        """Whether no attempt was before; a fork is created as if one had been."""
        return self.attempt == (1 if self.forked_from is None else 2)

    @property
    def replays(self) -> bool:
        """Whether an earlier attempt may have left steps in the journal."""
        return self.attempt > 1


# As text, for SQLAlchemy leaves table names out of what SQLite returns: a row would be compared with itself.
_COMPUTED: dict[str, ColumnElement[bool]] = {
    "keeps_slot": literal_column(
        "(run.slot = 'held' AND EXISTS (SELECT 1 FROM queue WHERE queue.project = run.project"
        " AND queue.deployment = run.deployment AND queue.name = run.queue"
        " AND queue.hold_while_waiting = 1))",
        Boolean,
    ),
    "leaves_backlog": literal_column(
        "EXISTS (SELECT 1 FROM run AS pending WHERE pending.slot = 'deferred' AND pending.ring_at IS NULL"
        " AND pending.project = run.project AND pending.deployment = run.deployment"
        " AND pending.route = run.route)",
        Boolean,
    ),
}
CLAIM_COLUMNS = [
    _COMPUTED[spec.name].label(spec.name) if spec.name in _COMPUTED else R[spec.name]
    for spec in fields(Claim)
]
RUN_COLUMNS = list(RUNS.c)


def claim_from(row: Row) -> Claim:
    """Return the claim that `claim_run` answered with."""
    return Claim(*row)


def ringing_from_now() -> Any:
    """Return when the sweeper rings a doorbell again that is rung now."""
    return now() + P("ring_again", type_=Float)


def spent_running() -> Any:
    """Return the run's running time including the attempt that now ends.

    Whoever executes a run gives the seconds that this attempt ran, as `spent`; else they count since the
    claim, or since a run was parked of which a turn is under way.
    """
    return R.running_seconds + func.coalesce(P("spent", type_=Float), now() - R.claimed_at, 0.0)


_starts_tree = and_(R.root_id == R.id, R.started_event.is_(None))
_CLAIM = Statement(
    update(RUNS)
    .where(
        R.id == P("run"),
        R.project == P("project"),
        R.deployment == P("deployment"),
        one_of(R.status, runs_before(RunStatus.RUNNING)),
        or_(R.not_before.is_(None), R.not_before <= now()),
        or_(R.slot.is_(None), R.slot == QueueSlot.HELD.value),  # a doorbell of a pending run is a stray one
        R.crashes <= P("crashes", type_=R.crashes.type),
    )
    .values(
        status=RunStatus.RUNNING.value,
        attempt=R.attempt + 1,
        event_seq=R.event_seq + case((_starts_tree, 1), else_=0),
        started_event=case((_starts_tree, R.event_seq + 1), else_=R.started_event),
        owner=P("worker"),
        claimed_at=now(),
        started_at=func.coalesce(R.started_at, now()),
        ring_at=None,
        not_before=None,
        debounce_key=None,
        rings=0,
    )
    .returning(*CLAIM_COLUMNS)
)
_CLAIMED = Statement(
    select(*CLAIM_COLUMNS).where(
        R.id == P("run"), R.status == RunStatus.RUNNING.value, R.owner == P("worker")
    )
)


def claim_run(run_id: str, worker: str, *, project: str, deployment: str, crashes: int = ANY_CRASHES) -> Unit:
    """Take a queued run of this deployment for `worker`; answers with the columns of `Claim`, or nothing.

    `crashes`: Only if no more workers than this died while they executed it.
    """
    place = {"project": project, "deployment": deployment}
    params = {"run": run_id, "worker": worker, "crashes": crashes, **place}
    return Unit((Part(_CLAIM, params),), (run_id,), order=(run_id,), check=Part(_CLAIMED, params))


def fence() -> tuple[ColumnElement[bool], ...]:
    """Return the condition every write of a coordinator carries on its own run row."""
    return (R.id == P("run"), R.attempt == P("attempt"), R.status == RunStatus.RUNNING.value)


FENCE = Statement(update(RUNS).where(*fence()).values(seq=R.seq + 1).returning(R.seq))
# A root's own step takes a number of the tree in the same breath; one of a run below is only told live.
_numbers = and_(R.root_id == R.id, P("numbered", type_=R.seq.type) == 1)
PROGRESS = Statement(
    update(RUNS)
    .where(*fence())
    .values(seq=R.seq + 1, crashes=0, event_seq=R.event_seq + case((_numbers, 1), else_=0))
    .returning(R.seq, case((_numbers, R.event_seq), else_=None).label("event"))
)

_frees_slot = and_(R.slot == QueueSlot.HELD.value, not_(_COMPUTED["keeps_slot"]))
_PARK = Statement(
    update(RUNS)
    .where(*fence(), R.wakes == P("seen"))
    .values(
        status=RunStatus.WAITING.value,
        owner=None,
        running_seconds=spent_running(),
        claimed_at=case((P("runs_on", type_=R.awaited.type) == 1, now()), else_=None),
        crashes=0,
        slot=case((_frees_slot, QueueSlot.RELEASED.value), else_=R.slot),
    )
    .returning(R.id)
)


def park_run(
    run_id: str,
    attempt: int,
    *,
    seen_wakes: int,
    spent_seconds: float | None = None,
    runs_on: bool = False,
) -> Unit:
    """Put a run away until something completes for it; answers nothing when something already did.

    `runs_on`: its running time goes on, for a turn of it is under way.
    """
    params = {
        "run": run_id,
        "attempt": attempt,
        "seen": seen_wakes,
        "spent": spent_seconds,
        "runs_on": int(runs_on),
    }
    return Unit((Part(_PARK, params),), (run_id,), order=(run_id,))


_HAND_BACK = Statement(
    update(RUNS)
    .where(*fence())
    .values(
        status=RunStatus.QUEUED.value,
        owner=None,
        running_seconds=spent_running(),
        claimed_at=None,
        ring_at=ringing_from_now(),
        rings=0,
    )
    .returning(R.id)
)
_RETRY = Statement(
    update(RUNS)
    .where(*fence())
    .values(
        status=RunStatus.QUEUED.value,
        owner=None,
        running_seconds=spent_running(),
        claimed_at=None,
        retries=R.retries + 1,
        error=P("error"),
        not_before=now() + P("delay", type_=Float),
        ring_at=now() + P("delay", type_=Float),
        rings=0,
    )
    .returning(R.id)
)
_BLOCK = Statement(
    update(RUNS)
    .where(*fence())
    .values(
        status=RunStatus.BLOCKED.value,
        owner=None,
        running_seconds=spent_running(),
        claimed_at=None,
        error=P("error"),
        slot=case((R.slot == QueueSlot.HELD.value, QueueSlot.RELEASED.value), else_=R.slot),
    )
    .returning(R.id)
)


def hand_back_run(
    run_id: str, attempt: int, *, ring_again: float, spent_seconds: float | None = None
) -> Unit:
    """Return a running run to the queue, for a worker that ends; the caller rings."""
    params = {"run": run_id, "attempt": attempt, "ring_again": ring_again, "spent": spent_seconds}
    return Unit((Part(_HAND_BACK, params),), (run_id,), order=(run_id,))


_is_released = R.slot == QueueSlot.RELEASED.value


def wanted_again() -> ColumnElement[Any]:
    """Return the slot of a run that is queued again: one that gave its own up wants another."""
    return case((_is_released, QueueSlot.WANTED.value), else_=R.slot)


_UNBLOCK = Statement(
    update(RUNS)
    .where(R.id == P("run"), R.status == RunStatus.BLOCKED.value)
    .values(
        status=RunStatus.QUEUED.value,
        error=None,
        ring_at=case((_is_released, None), else_=now()),
        slot=wanted_again(),
        rings=0,
    )
    .returning(R.id)
)


def unblock_run(run_id: str) -> Unit:
    """Queue a blocked run again, once a person has mended the code; a sweeper rings within a second."""
    return Unit((Part(_UNBLOCK, {"run": run_id}),), (run_id,), order=(run_id,))


def retry_run(
    run_id: str, attempt: int, *, error: str, delay: float, spent_seconds: float | None = None
) -> Unit:
    """Queue a failed attempt again after `delay` seconds; the sweeper rings."""
    params = {"run": run_id, "attempt": attempt, "error": error, "delay": delay, "spent": spent_seconds}
    return Unit((Part(_RETRY, params),), (run_id,), order=(run_id,))


def block_run(run_id: str, attempt: int, *, error: str, spent_seconds: float | None = None) -> Unit:
    """Stop a run whose replay deviated, until a person decides."""
    params = {"run": run_id, "attempt": attempt, "error": error, "spent": spent_seconds}
    return Unit((Part(_BLOCK, params),), (run_id,), order=(run_id,))


_is_parked = R.status == RunStatus.WAITING.value
WAKE_VALUES = {
    "seq": R.seq + 1,
    "wakes": R.wakes + 1,
    "crashes": 0,
    "running_seconds": R.running_seconds
    + case((_is_parked, func.coalesce(now() - R.claimed_at, 0.0)), else_=0.0),
    "claimed_at": case((_is_parked, None), else_=R.claimed_at),
    "ring_at": case(
        (and_(_is_parked, _is_released), None), (_is_parked, ringing_from_now()), else_=R.ring_at
    ),
    "slot": case((_is_parked, wanted_again()), else_=R.slot),
    "rings": case((R.status == RunStatus.WAITING.value, 0), else_=R.rings),
    "status": case((R.status == RunStatus.WAITING.value, RunStatus.QUEUED.value), else_=R.status),
}


def is_live(run_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that the run `run_id`, of this deployment, has not ended."""
    other = RUNS.alias("live")
    return exists().where(
        other.c.id == run_id,
        other.c.project == P("project"),
        other.c.deployment == P("deployment"),
        one_of(other.c.status, LIVE),
    )


READ_RUN = Statement(select(*RUN_COLUMNS).where(R.id == P("run")))
READ_RUN_AND_CLOCK = Statement(select(now(), *RUN_COLUMNS).where(R.id == P("run")))
READ_RUN_BY_KEY = Statement(
    select(*RUN_COLUMNS).where(R.project == P("project"), R.idempotency_key == P("idempotency_key"))
)
READ_OWNED = Statement(
    select(R.id, R.attempt, R.wakes, R.status).where(
        R.owner == P("worker"), R.status == RunStatus.RUNNING.value
    )
)


def run_record(row: Row) -> dict[str, Any]:
    """Return a row of READ_RUN by column name."""
    return {column.name: value for column, value in zip(RUN_COLUMNS, row, strict=True)}


def is_pending(run: dict[str, Any]) -> bool:
    """Whether a run, given by column name, waits to be admitted: a doorbell would be of no use."""
    return run["status"] == RunStatus.QUEUED and run["slot"] in {QueueSlot.DEFERRED, QueueSlot.WANTED}
