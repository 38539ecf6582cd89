"""What model calls of a project used: of turns that are there, and of those that retention removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Integer,
    Select,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    null,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.database import Connection
from polos.journal.runs import RUNS, R
from polos.journal.spending import SUMMED
from polos.journal.statements import Statement, day_of, now
from polos.journal.steps import STEPS, S
from polos.journal.tables import UsageDay

P = bindparam
USAGE_DAYS = UsageDay.__table__  # type: ignore[attr-defined]
U = USAGE_DAYS.c
GROUPS = ("day", "agent", "model", "session")
FIGURES = (*SUMMED, "cost")
UNKNOWN = "unknown"  # agent or model of turns whose worker died before it could say
_MOMENT = select(now()).scalar_subquery()
_is_turn = (S.kind == literal_column("'turn'"), S.calls > 0)
_agent = func.coalesce(S.agent, literal_column(f"'{UNKNOWN}'"))
_model = func.coalesce(S.model, literal_column(f"'{UNKNOWN}'"))
_day = day_of(func.coalesce(S.finished_at, S.started_at))


@dataclass(frozen=True)
class UsageQuery:
    """Which model calls to sum up, and by what. What is None restricts nothing.

    Attributes:
        by: One of `GROUPS`; None sums everything up in one row.
        since: Turns that ended at this time or later, in seconds since the epoch; of runs that were removed,
            those of the whole day.
        since_seconds: So many seconds ago by the database's clock.
        until: Turns that ended before this time.
        run_id: Of this run and all runs below it, those still under way too.
    """

    project: str
    by: str | None = None
    since: float | None = None
    since_seconds: float | None = None
    until: float | None = None
    agent: str | None = None
    session: str | None = None
    model: str | None = None
    run_id: str | None = None


def read_usage(journal: Connection, wanted: UsageQuery) -> list[dict[str, Any]]:
    """Return `FIGURES` by name, with what they are ``of``: sorted by that, which is None without `by`."""
    kept = _in_one(_of_turns(wanted), _of_days(wanted)).subquery("used")
    sums = select(kept.c.of, *_summed(kept.c)).group_by(kept.c.of).order_by(kept.c.of)
    rows = journal.read(Statement(sums), _params(wanted))
    return [_figures(row) for row in rows]


def _in_one(turns: Select[Any], days: Select[Any] | None) -> Any:
    return turns if days is None else union_all(turns, days)


def _summed(columns: Any) -> list[ColumnElement[Any]]:
    return [func.sum(columns[name]).label(name) for name in FIGURES]


def _figures(row: tuple[Any, ...]) -> dict[str, Any]:
    of, *figures = row
    counted = dict(zip(FIGURES, figures, strict=True))
    cost = counted.pop("cost")
    return {"of": of, **{name: int(count) for name, count in counted.items()}, "cost": cost}


def _of_turns(wanted: UsageQuery) -> Select[Any]:
    by = {"day": _day, "agent": _agent, "model": _model, "session": R.session_id}
    of = null() if wanted.by is None else by[wanted.by]
    chosen = (
        select(of.label("of"), *(S[name].label(name) for name in FIGURES))
        .join_from(STEPS, RUNS, S.run_id == R.id)
        .where(*_is_turn, R.project == P("project"))
    )
    for condition in _conditions(wanted, agent=_agent, model=_model):
        chosen = chosen.where(condition)
    if wanted.session is not None:
        chosen = chosen.where(R.session_id == P("session"), R.kind == literal_column("'agent'"))
    if wanted.run_id is not None:
        chosen = chosen.where(R.id.in_(select(below("run_id").c.id)))
    if wanted.since is not None:
        chosen = chosen.where(S.finished_at >= P("since", type_=Float))
    if wanted.since_seconds is not None:
        chosen = chosen.where(S.finished_at >= _MOMENT - P("since_seconds", type_=Float))
    if wanted.until is not None:
        chosen = chosen.where(S.finished_at < P("until", type_=Float))
    return chosen


def _of_days(wanted: UsageQuery) -> Select[Any] | None:
    """Return what is known of runs that were removed, None where it cannot be told apart."""
    if wanted.session is not None or wanted.run_id is not None:
        return None
    by = {"day": U.day, "agent": U.agent, "model": U.model, "session": null()}
    of = null() if wanted.by is None else by[wanted.by]
    chosen = select(of.label("of"), *(U[name].label(name) for name in FIGURES)).where(
        U.project == P("project")
    )
    for condition in _conditions(wanted, agent=U.agent, model=U.model):
        chosen = chosen.where(condition)
    if wanted.since is not None:
        chosen = chosen.where(U.day >= day_of(P("since", type_=Float)))
    if wanted.since_seconds is not None:
        chosen = chosen.where(U.day >= day_of(_MOMENT - P("since_seconds", type_=Float)))
    if wanted.until is not None:
        chosen = chosen.where(U.day < day_of(P("until", type_=Float)))
    return chosen


def _conditions(wanted: UsageQuery, *, agent: Any, model: Any) -> list[ColumnElement[bool]]:
    given = {"agent": (agent, wanted.agent), "model": (model, wanted.model)}
    return [column == P(name) for name, (column, value) in given.items() if value is not None]


def _params(wanted: UsageQuery) -> Mapping[str, Any]:
    names = ("project", "since", "since_seconds", "until", "agent", "session", "model", "run_id")
    return {name: value for name in names if (value := getattr(wanted, name)) is not None}


def below(name: str) -> Any:
    """Return the ids of the run that parameter `name` names, and of all runs below it."""
    top = select(R.id).where(R.id == P(name)).cte("below", recursive=True)
    return top.union_all(select(R.id).where(R.parent_id == top.c.id))


# -- what has been used already, for limits

_COUNTED = ("calls", "unpriced_calls", "total_tokens")


@dataclass(frozen=True)
class Used:
    """What a run and all below it, or a session, have used so far.

    Attributes:
        cost: US dollars of the calls whose price is known.
    """

    calls: int = 0
    unpriced_calls: int = 0
    total_tokens: int = 0
    cost: float = 0.0
    now: float = 0.0


def _totals(columns: Any) -> list[ColumnElement[Any]]:
    counts = [cast(func.coalesce(func.sum(columns[name]), 0), Integer) for name in _COUNTED]
    return [*counts, func.coalesce(func.sum(columns.cost), 0.0), now()]


_turns = [
    S.calls,
    S.unpriced_calls,
    (S.input_tokens + S.output_tokens).label("total_tokens"),
    S.cost,
]
_is_agent = R.kind == literal_column("'agent'")
_tree = below("run")
_turns_of_tree = (
    select(*_turns)
    .join_from(_tree, RUNS, R.id == _tree.c.id)
    .join(STEPS, S.run_id == R.id)
    .where(_is_agent, *_is_turn)
    .subquery("used")
)
READ_USED_BELOW = Statement(select(*_totals(_turns_of_tree.c)))
_of_session = (R.project == P("project"), R.session_id == P("session"), _is_agent)
# Runs that have ended have their sums; of the others, each turn counts as soon as an attempt of it has ended.
_used_in_session = union_all(
    select(R.calls, R.unpriced_calls, R.total_tokens, R.cost).where(*_of_session, R.finished_at.is_not(None)),
    select(*_turns)
    .join_from(RUNS, STEPS, S.run_id == R.id)
    .where(*_of_session, R.finished_at.is_(None), *_is_turn),
).subquery("used")
READ_USED_IN_SESSION = Statement(select(*_totals(_used_in_session.c)))


# -- what outlives the turns

_KEY = ("project", "day", "agent", "model")


def keep_usage(*of_steps: ColumnElement[bool]) -> Statement:
    """Return the statement that adds what these turns used to the sums by day, before they are removed."""
    chosen = select(
        P("project", type_=U.project.type),
        _day.label("day"),
        _agent.label("agent"),
        _model.label("model"),
        *_summed(S),
    ).where(*of_steps, *_is_turn)
    added = upsert(USAGE_DAYS).from_select([*_KEY, *FIGURES], chosen.group_by(_day, _agent, _model))
    sums: dict[str, Any] = {name: U[name] + added.excluded[name] for name in SUMMED}
    known = added.excluded.cost
    sums["cost"] = case((U.cost.is_(None), known), else_=U.cost + func.coalesce(known, 0.0))
    return Statement(added.on_conflict_do_update(index_elements=list(_KEY), set_=sums))
