"""Units and reads on workers: register, beat, what each offers, which deployment is the newest."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from sqlalchemy import Text, bindparam, delete, exists, insert, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.statements import Part, Row, Statement, Unit, now
from polos.journal.tables import Definition, Deployment, Worker

W = Worker.__table__.c  # type: ignore[attr-defined]
WORKERS = Worker.__table__  # type: ignore[attr-defined]
D = Definition.__table__.c  # type: ignore[attr-defined]
DEFINITIONS = Definition.__table__  # type: ignore[attr-defined]
DEPLOYMENTS = Deployment.__table__  # type: ignore[attr-defined]
P = bindparam
Offer = tuple[str, str]  # kind and name of a definition
NO_DETAILS: Mapping[Offer, str] = MappingProxyType({})


@dataclass(frozen=True)
class WorkerRow:
    """A worker as it registers. `hostname` is its Celery node name."""

    id: str
    hostname: str
    pid: int
    project: str
    deployment: str
    kind: str
    routes: str
    concurrency: int

    @property
    def lock_key(self) -> int:
        """The second key of its advisory lock."""
        return lock_key(self.id)


def lock_key(worker_id: str) -> int:
    """Return the advisory lock key of a worker id: a signed 32-bit integer."""
    return zlib.crc32(worker_id.encode()) - 2**31


_REGISTER = Statement(
    insert(WORKERS)
    .values(
        **{spec.name: P(spec.name, type_=W[spec.name].type) for spec in fields(WorkerRow)},
        lock_key=P("lock_key"),
        draining=0,
        started_at=now(),
        beat_at=now(),
    )
    .returning(W.id)
)
_FIRST_SEEN = Statement(
    upsert(DEPLOYMENTS)
    .values(project=P("project"), name=P("deployment"), admissions=literal(0), first_seen_at=now())
    .on_conflict_do_nothing()
)
_OFFER = Statement(
    upsert(DEFINITIONS)
    .values(
        worker_id=P("id"), kind=P("kind_offered"), name=P("name_offered"), details=P("details", type_=Text)
    )
    .on_conflict_do_nothing()
)


def register_worker(
    worker: WorkerRow,
    offers: Iterable[Offer],
    *,
    details: Mapping[Offer, str] = NO_DETAILS,
    lock_key: int | None = None,
) -> Unit:
    """Enter a worker and what it offers, with JSON `details`. Call it after the worker holds its lock.

    `lock_key`: of its lock, where that is not the one that goes with its id.
    """
    values: dict[str, Any] = {spec.name: getattr(worker, spec.name) for spec in fields(worker)}
    values["lock_key"] = worker.lock_key if lock_key is None else lock_key
    first_seen = Part(_FIRST_SEEN, {"project": worker.project, "deployment": worker.deployment}, guard=False)
    return Unit(
        (Part(_REGISTER, values), first_seen, *_offers(worker.id, offers, details)), (), order=(worker.id,)
    )


def _offers(worker_id: str, offers: Iterable[Offer], details: Mapping[Offer, str]) -> list[Part]:
    return [
        Part(
            _OFFER,
            {
                "id": worker_id,
                "kind_offered": kind,
                "name_offered": name,
                "details": details.get((kind, name)),
            },
            guard=False,
        )
        for kind, name in sorted(offers)
    ]


def offer_definitions(
    worker_id: str, offers: Iterable[Offer], *, details: Mapping[Offer, str] = NO_DETAILS
) -> Unit:
    """Add definitions to those a registered worker offers."""
    return Unit(tuple(_offers(worker_id, offers, details)), (), order=(worker_id,))


_BEAT = Statement(update(WORKERS).where(W.id == P("worker")).values(beat_at=now()).returning(W.beat_at))
_DRAIN = Statement(update(WORKERS).where(W.id == P("worker")).values(draining=1).returning(W.id))
_GONE = Statement(delete(WORKERS).where(W.id == P("worker")).returning(W.id))
_OFFERS_GONE = Statement(delete(DEFINITIONS).where(D.worker_id == P("worker")))


def beat(worker_id: str) -> Unit:
    """Say that a worker lives; answers nothing when it has been declared dead."""
    return Unit((Part(_BEAT, {"worker": worker_id}),), (), order=(worker_id,))


def start_draining(worker_id: str) -> Unit:
    """Say that a worker takes no more runs."""
    return Unit((Part(_DRAIN, {"worker": worker_id}),), (), order=(worker_id,))


def remove_worker(worker_id: str) -> Unit:
    """Forget a worker that has ended; its runs must have been put back before."""
    params = {"worker": worker_id}
    return Unit(
        (Part(_GONE, params, guard=False), Part(_OFFERS_GONE, params, guard=False)), (), order=(worker_id,)
    )


_CONDEMN = Statement(delete(WORKERS).where(W.id == P("worker"), W.beat_at <= P("beat_at")).returning(W.id))
_OFFERS_OF_NOBODY = Statement(
    delete(DEFINITIONS).where(
        D.worker_id == P("worker"), ~exists().where(W.id == P("worker", type_=W.id.type))
    )
)


def condemn(worker_id: str, *, beat_at: float) -> Unit:
    """Declare a worker dead that was last seen to beat then; answers (id,), or nothing when it beat since.

    Before anything it owns is touched: from here on none of its beats is acknowledged, and what is left of
    its own is found by `READ_LOST_OWNERS`, whoever dies now.
    """
    params = {"worker": worker_id, "beat_at": beat_at}
    return Unit(
        (Part(_CONDEMN, params), Part(_OFFERS_OF_NOBODY, params, guard=False)), (), order=(worker_id,)
    )


@dataclass(frozen=True)
class SeenWorker:
    """A worker as a sweeper sees it; times by the database's clock."""

    id: str
    hostname: str
    routes: str
    lock_key: int
    beat_at: float
    now: float

    @property
    def silent_seconds(self) -> float:
        """How long ago it last beat."""
        return self.now - self.beat_at


READ_WORKERS = Statement(select(W.id, W.hostname, W.routes, W.lock_key, W.beat_at, now()).order_by(W.id))
READ_WORKER_DETAILS = Statement(select(*WORKERS.c, now()).order_by(W.started_at))
READ_OFFERING = Statement(
    select(W.id, W.hostname)
    .join_from(WORKERS, DEFINITIONS, D.worker_id == W.id)
    .where(
        W.project == P("project"),
        W.deployment == P("deployment"),
        W.draining == 0,
        W.beat_at > now() - P("silence"),
        or_(D.kind == P("kind"), literal("") == P("kind")),
        D.name == P("name"),
    )
    .order_by(W.id)
)
READ_OFFERS = Statement(
    select(W.deployment, D.kind)
    .join_from(WORKERS, DEFINITIONS, D.worker_id == W.id)
    .join(DEPLOYMENTS, (DEPLOYMENTS.c.project == W.project) & (DEPLOYMENTS.c.name == W.deployment))
    .where(
        W.project == P("project"),
        W.draining == 0,
        W.beat_at > now() - P("silence"),
        D.name == P("name"),
    )
    .order_by(DEPLOYMENTS.c.first_seen_at.desc())
)
READ_NEWEST_DEPLOYMENT = Statement(
    select(DEPLOYMENTS.c.name)
    .where(DEPLOYMENTS.c.project == P("project"))
    .order_by(DEPLOYMENTS.c.first_seen_at.desc())
    .limit(1)
)
READ_CLOCK = Statement(select(now(), literal(0)))


def worker_details(row: Row) -> dict[str, Any]:
    """Return a row of READ_WORKER_DETAILS by column name; ``now`` is the database's clock."""
    return dict(zip([*WORKERS.c.keys(), "now"], row, strict=True))


def seen_from(row: Row) -> SeenWorker:
    """Return a row of READ_WORKERS."""
    return SeenWorker(*row)
