"""Queues as people see them: limits, who holds slots, who waits and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, func, literal_column, select

from polos.journal.database import Connection
from polos.journal.queues import QUEUES, Q
from polos.journal.runs import R
from polos.journal.statements import Statement, now
from polos.queues import LaneInfo, QueueInfo

P = bindparam
MOST_KEYS = 100  # listed of one queue, those with most runs first

_LIMITS = ("concurrency_limit", "rate_limit", "rate_seconds", "hold_while_waiting", "is_paused")
_READ_LIMITS = Statement(
    select(Q.deployment, Q.name, *(Q[name] for name in _LIMITS))
    .select_from(QUEUES)
    .where(Q.project == P("project"))
)
_LANE = (R.deployment, R.queue, R.concurrency_key)


def _lanes(slot: str, *conditions: Any) -> Statement:
    return Statement(
        select(*_LANE, func.count(), now() - func.min(R.created_at))
        .where(R.project == P("project"), R.slot == literal_column(f"'{slot}'"), *conditions)
        .group_by(*_LANE)
    )


_READ_HELD = _lanes("held")
_READ_PENDING = (_lanes("wanted", R.ring_at.is_(None)), _lanes("deferred", R.ring_at.is_(None)))


@dataclass
class _Queue:
    limits: dict[str, Any] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    pending: dict[str, int] = field(default_factory=dict)
    oldest_seconds: float = 0.0

    def lanes(self) -> Iterator[LaneInfo]:
        keys = sorted(
            {*self.held, *self.pending},
            key=lambda key: (-self.pending.get(key, 0), -self.held.get(key, 0), key),
        )
        for key in keys[:MOST_KEYS]:
            yield LaneInfo(
                concurrency_key=key or None, held=self.held.get(key, 0), pending=self.pending.get(key, 0)
            )

    def shown(self, deployment: str, name: str) -> QueueInfo:
        return QueueInfo(
            name=name,
            deployment_id=deployment,
            **self.limits,
            held=sum(self.held.values()),
            pending=sum(self.pending.values()),
            oldest_pending_seconds=self.oldest_seconds if self.pending else None,
            keys=list(self.lanes()),
        )


def list_queues(journal: Connection, project: str, *, deployment: str | None = None) -> list[QueueInfo]:
    """Return the queues of a project that have limits or runs that wait to be admitted, by name.

    Runs of other queues begin at once, so that there is nothing to tell of them.
    """
    found: dict[tuple[str, str], _Queue] = {}
    params = {"project": project}
    for of, name, *limits in journal.read(_READ_LIMITS, params):
        found[of, name] = _Queue(dict(zip(_LIMITS, limits, strict=True)))
    for of, name, key, count, _ in journal.read(_READ_HELD, params):
        found.setdefault((of, name), _Queue()).held[key] = count
    for statement in _READ_PENDING:
        for of, name, key, count, oldest in journal.read(statement, params):
            queue = found.setdefault((of, name), _Queue())
            queue.pending[key] = queue.pending.get(key, 0) + count
            queue.oldest_seconds = max(queue.oldest_seconds, oldest)
    return [queue.shown(*at) for at, queue in sorted(found.items()) if deployment in {None, at[0]}]
