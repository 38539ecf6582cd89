"""What live workers offer to a project, with the details of each definition; who they are; deployments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from sqlalchemy import Float, bindparam, func, select

from polos.journal.database import Connection
from polos.journal.statements import Params, Rows, Statement, now
from polos.journal.workers import DEFINITIONS, DEPLOYMENTS, WORKERS, D, W

P = bindparam
_N = DEPLOYMENTS.c
_is_live = (W.draining == 0) & (W.beat_at > now() - P("silence", type_=Float))
_READ_OFFERED = Statement(
    select(D.kind, D.name, W.deployment, func.max(D.details), _N.first_seen_at)
    .join_from(DEFINITIONS, WORKERS, D.worker_id == W.id)
    .join(DEPLOYMENTS, (_N.project == W.project) & (_N.name == W.deployment))
    .where(W.project == P("project"), _is_live)
    .group_by(D.kind, D.name, W.deployment, _N.first_seen_at)
    .order_by(_N.first_seen_at.desc(), D.name)
)
_READ_LIVE = Statement(
    select(W.id, W.deployment).where(W.project == P("project"), _is_live).order_by(W.started_at, W.id)
)
_READ_DEPLOYMENT = Statement(
    select(_N.name, _N.first_seen_at).where(_N.project == P("project"), _N.name == P("deployment"))
)


class Reader(Protocol):
    """What can read the journal."""

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""


def read_offered(
    journal: Reader, project: str, *, silence_limit_seconds: float, name: str | None = None
) -> Iterator[dict[str, Any]]:
    """Return what live workers offer, under one name or all, the newest deployment first, once for each.

    Keys: ``kind``, ``name``, ``deployment``, ``details`` (JSON text, or None of an older worker),
    ``first_seen_at`` of the deployment.
    """
    names = ("kind", "name", "deployment", "details", "first_seen_at")
    rows = journal.read(_READ_OFFERED, {"project": project, "silence": silence_limit_seconds})
    return (dict(zip(names, row, strict=True)) for row in rows if name in {None, row[1]})


def read_live_workers(
    journal: Connection, project: str, *, silence_limit_seconds: float
) -> list[tuple[str, str]]:
    """Return (id, deployment) of the workers that live and take runs, the oldest first."""
    rows = journal.read(_READ_LIVE, {"project": project, "silence": silence_limit_seconds})
    return [(row[0], row[1]) for row in rows]


def read_deployment(journal: Connection, project: str, name: str) -> float | None:
    """Return when a deployment was first seen, in seconds since the epoch; None for an unknown one."""
    rows = journal.read(_READ_DEPLOYMENT, {"project": project, "deployment": name})
    return float(rows[0][1]) if rows else None
