"""Which deployment's declarations count: those of the newest that offers a workflow, and is there."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Float, and_, bindparam, exists, func, literal_column, or_, select

from polos.journal.statements import now
from polos.journal.tables import Definition, Deployment, Worker

P = bindparam
W = Worker.__table__.alias("holder")  # type: ignore[attr-defined]
D = Definition.__table__.alias("held")  # type: ignore[attr-defined]


def may_take(table: str) -> ColumnElement[bool]:
    """Return the condition that :deployment may replace what the deployment in a row of `table` declared.

    A newer one may, and an older one where nobody is left of the newer: code was rolled back.
    """
    return or_(_column(table, "deployment") == P("deployment"), _is_newer(table), ~_is_offered(table))


def left_behind(table: str) -> ColumnElement[bool]:
    """Return the condition that nobody is left of an older deployment than :deployment to serve a row."""
    return and_(_is_newer(table), ~_is_offered(table))


def _is_newer(table: str) -> ColumnElement[bool]:
    """Return the condition that :deployment was first seen after the one of the row."""
    newer: ColumnElement[bool] = _seen(table, P("deployment")) > _seen(table, _column(table, "deployment"))
    return newer


def _is_offered(table: str) -> ColumnElement[bool]:
    """Return the condition that a live worker of the row's deployment offers its workflow."""
    return exists(
        select(literal_column("1"))
        .select_from(W.join(D, D.c.worker_id == W.c.id))
        .where(
            W.c.project == _column(table, "project"),
            W.c.deployment == _column(table, "deployment"),
            W.c.draining == 0,
            W.c.beat_at > now() - P("silence", type_=Float),
            D.c.name == _column(table, "workflow"),
        )
    )


def _column(table: str, name: str) -> Any:
    """Return a column of the row a statement is at, by its text: ON CONFLICT correlates nothing by itself."""
    return literal_column(f"{table}.{name}")


def _seen(table: str, name: Any) -> Any:
    deployments = Deployment.__table__.alias()  # type: ignore[attr-defined]
    found = select(deployments.c.first_seen_at).where(
        deployments.c.project == _column(table, "project"), deployments.c.name == name
    )
    return func.coalesce(found.scalar_subquery(), literal_column("0"))
