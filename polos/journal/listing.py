"""Reads for people who look at many runs at once: lists, totals, what workers own, what nobody serves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Float, Select, and_, bindparam, case, exists, func, select, true

from polos.journal.runs import RUNS, R
from polos.journal.statements import Row, Statement, now, texts_of
from polos.journal.states import RunStatus, StepStatus
from polos.journal.steps import STEPS, S
from polos.journal.workers import D

P = bindparam
TOTALLED_RUNS = 10_000  # totals count the newest so many, so that they cost the same in a large journal
# Asked once a statement: an index cannot be searched for what a volatile function may answer row by row.
_MOMENT = select(now()).scalar_subquery()

LISTED_COLUMNS = (
    "id",
    "project",
    "deployment",
    "kind",
    "name",
    "status",
    "attempt",
    "crashes",
    "retries",
    "owner",
    "parent_id",
    "root_id",
    "session_id",
    "user_id",
    "route",
    "error",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cost",
    "created_at",
    "started_at",
    "finished_at",
)
_FILTERED = ("kind", "name", "session_id", "user_id")


@dataclass(frozen=True)
class RunFilter:
    """Which runs of a project to list. What is None or empty restricts nothing.

    Attributes:
        since: Created at this time or later, in seconds since the epoch.
        since_seconds: Created so many seconds ago by the database's clock, or later.
    """

    project: str
    statuses: Collection[str] = ()
    kind: str | None = None
    name: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    roots_only: bool = True
    since: float | None = None
    since_seconds: float | None = None


@dataclass(frozen=True)
class Query:
    """A statement with its parameters, to be read again and again."""

    statement: Statement
    params: Mapping[str, Any] = field(default_factory=dict)


def newest_runs(wanted: RunFilter, *, limit: int) -> Query:
    """Return the query for the newest runs that pass; rows go to `listed_run`."""
    conditions, params = _conditions(R, wanted)
    chosen = _in_time(select(*(R[name] for name in LISTED_COLUMNS), now()).where(*conditions), wanted)
    if wanted.statuses:
        statuses = {f"status_{place}": status for place, status in enumerate(sorted(wanted.statuses))}
        chosen = chosen.where(R.status.in_([P(name) for name in statuses]))
        params |= statuses
    return Query(Statement(chosen), {**params, "limit": limit, **_times(wanted)})


def status_totals(wanted: RunFilter, *, among: int = TOTALLED_RUNS) -> Query:
    """Return the query for (status, how many pass, how many were looked at) of the newest `among` runs.

    Whatever state is wanted. It reads so many rows of the index and no more, however few of them pass.
    """
    columns = [R[name] for name in ("status", "parent_id", *_FILTERED)]
    newest = _in_time(select(*columns), wanted).subquery("newest").c
    conditions, params = _conditions(newest, wanted)
    passes = case((and_(true(), *conditions), 1), else_=0)
    totals = select(newest.status, func.sum(passes), func.count()).group_by(newest.status)
    return Query(Statement(totals), {**params, "limit": among, **_times(wanted)})


def listed_run(row: Row) -> dict[str, Any]:
    """Return a row of `newest_runs` by column name; ``now`` is the database's clock."""
    return dict(zip((*LISTED_COLUMNS, "now"), row, strict=True))


def _conditions(columns: Any, wanted: RunFilter) -> tuple[list[ColumnElement[bool]], dict[str, Any]]:
    """Return what rows with these columns must fulfil, state and time apart, with its parameters."""
    given = {name: getattr(wanted, name) for name in _FILTERED}
    params = {name: value for name, value in given.items() if value is not None}
    conditions = [columns[name] == P(name) for name in params]
    return conditions + ([columns.parent_id.is_(None)] if wanted.roots_only else []), params


def _in_time(columns: Select[Any], wanted: RunFilter) -> Select[Any]:
    """Return the newest rows of the project, along the index on project and time."""
    chosen = columns.where(R.project == P("project"))
    if wanted.since is not None:
        chosen = chosen.where(R.created_at >= P("since", type_=Float))
    if wanted.since_seconds is not None:
        chosen = chosen.where(R.created_at >= _MOMENT - P("since_seconds", type_=Float))
    return chosen.order_by(R.created_at.desc(), R.id.desc()).limit(P("limit"))


def _times(wanted: RunFilter) -> dict[str, Any]:
    given = {"project": wanted.project, "since": wanted.since, "since_seconds": wanted.since_seconds}
    return {name: value for name, value in given.items() if value is not None}


# -- one run, by the beginning of its id

_ID_SHAPE = "00000000-0000-0000-0000-000000000000"
_READ_IDS = Statement(
    select(R.id).where(R.id >= P("first"), R.id <= P("last")).order_by(R.id).limit(P("limit"))
)


def ids_beginning(prefix: str, *, limit: int) -> Query:
    """Return the query for the ids that begin with `prefix`, itself the beginning of a UUID.

    Both ends of the range are whole ids: whatever the collation, these sort as their characters do.
    """
    first, last = prefix + _ID_SHAPE[len(prefix) :], prefix + _ID_SHAPE.replace("0", "f")[len(prefix) :]
    return Query(_READ_IDS, {"first": first, "last": last, "limit": limit})


TREE_STEP_COLUMNS = (
    "run_id",
    "name",
    "kind",
    "position",
    "status",
    "tries",
    "owner",
    "error",
    "child_id",
    "started_at",
    "finished_at",
    "model",
    "calls",
    "unpriced_calls",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cost",
)
# The steps of all runs below one root, without their values.
READ_TREE_STEPS = Statement(
    select(
        *(S[name] for name in TREE_STEP_COLUMNS),
    )
    .join_from(RUNS, STEPS, S.run_id == R.id)
    .where(R.root_id == P("root"))
    .order_by(S.run_id, S.position, S.name)
)


def tree_step(row: Row) -> dict[str, Any]:
    """Return a row of READ_TREE_STEPS by column name."""
    return dict(zip(TREE_STEP_COLUMNS, row, strict=True))


# -- workers and what they own

_open_step = exists().where(S.run_id == R.id, S.seq.is_(None))
# (worker, 1 if the run waits for a turn or child that is under way, runs)
READ_OWNED_COUNTS = Statement(
    select(R.owner, case((_open_step, 1), else_=0).label("waits"), func.count())
    .where(R.owner.is_not(None), R.status == RunStatus.RUNNING.value)
    .group_by(R.owner, "waits")
)
READ_TURN_COUNTS = Statement(
    select(S.owner, func.count())
    .where(S.status == StepStatus.RUNNING.value, S.kind == "turn", S.owner.is_not(None))
    .group_by(S.owner)
)
READ_DEFINITIONS = Statement(select(D.worker_id, D.kind, D.name).order_by(D.worker_id, D.kind, D.name))

WAITING_COLUMNS = ("project", "deployment", "route", "kind", "name", "count", "oldest_seconds")
# What is queued, by what it needs of a worker: (…, how many, for how many seconds the oldest exists)
READ_QUEUED = Statement(
    select(
        R.project,
        R.deployment,
        R.route,
        R.kind,
        R.name,
        func.count(),
        _MOMENT - func.min(R.created_at),
    )
    .where(R.ring_at.is_not(None), R.status == RunStatus.QUEUED.value)
    .group_by(R.project, R.deployment, R.route, R.kind, R.name)
    .order_by(R.project, R.deployment, R.route, R.kind, R.name)
)
READ_SCHEDULED = Statement(
    select(
        R.project,
        R.deployment,
        R.route,
        R.kind,
        R.name,
        func.count(),
        _MOMENT - func.min(S.started_at),
    )
    .join_from(STEPS, RUNS, R.id == S.run_id)
    .where(S.ring_at.is_not(None), S.status == StepStatus.SCHEDULED.value)
    .group_by(R.project, R.deployment, R.route, R.kind, R.name)
    .order_by(R.project, R.deployment, R.route, R.kind, R.name)
)


def waiting_work(row: Row) -> dict[str, Any]:
    """Return a row of READ_QUEUED or READ_SCHEDULED by name."""
    return dict(zip(WAITING_COLUMNS, row, strict=True))


READ_ALL_RUNS = Statement(select(*RUNS.c).order_by(R.created_at, R.depth, R.id))
READ_RUNS_OF_TREES = Statement(
    select(*RUNS.c)
    .where(R.root_id.op("IN")(texts_of(P("roots", type_=R.id.type))))
    .order_by(R.created_at, R.depth, R.id)
)
