"""Sessions, as far as runs tell of them: the runs of agents that share a session id."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Float, bindparam, case, func, literal_column, select

from polos.encryption import PREFIX
from polos.journal.database import Connection
from polos.journal.runs import R
from polos.journal.statements import Statement, one_of
from polos.journal.steps import S

P = bindparam
LOOKED_AT_RUNS = 10_000  # sessions are found among the newest so many runs, whatever the journal holds
PREVIEWED_CHARACTERS = 4_000  # of an input, from which its first words are taken
_COLUMNS = (
    "id",
    "root_id",
    "name",
    "session_id",
    "status",
    "error",
    "total_tokens",
    "created_at",
)
_MORE = ("input_start", "run_count")
# Of an encrypted one the beginning alone cannot be read.
_is_sealed = func.substr(R.input, 1, len(PREFIX)) == PREFIX
_input_start = case((_is_sealed, R.input), else_=func.substr(R.input, 1, PREVIEWED_CHARACTERS)).label(
    "input_start"
)


@dataclass(frozen=True)
class SessionPage:
    """Which sessions of a project to return, by their newest run. None or empty restricts nothing."""

    project: str
    limit: int
    offset: int = 0
    agent: str | None = None
    statuses: Collection[str] = ()
    since: float | None = None
    until: float | None = None


def read_sessions(journal: Connection, wanted: SessionPage) -> list[dict[str, Any]]:
    """Return the newest run of each session by column name, with ``run_count`` and ``tool_call_count``."""
    conditions, params = _conditions(wanted)
    newest = (
        select(*(R[name] for name in _COLUMNS), _input_start)
        .where(*conditions)
        .order_by(R.created_at.desc(), R.id.desc())
        .limit(LOOKED_AT_RUNS)
        .subquery("newest")
    )
    c = newest.c
    newest_first = (c.created_at.desc(), c.id.desc())
    place = func.row_number().over(partition_by=c.session_id, order_by=newest_first).label("place")
    count = func.count().over(partition_by=c.session_id).label("run_count")
    counted = select(*c, count, place).subquery("counted")
    chosen = select(*(counted.c[name] for name in (*_COLUMNS, *_MORE))).where(
        counted.c.place == literal_column("1")
    )
    if wanted.statuses:
        statuses = {f"status_{place}": status for place, status in enumerate(sorted(wanted.statuses))}
        chosen = chosen.where(counted.c.status.in_([P(name) for name in statuses]))
        params |= statuses
    chosen = chosen.order_by(counted.c.created_at.desc(), counted.c.id.desc())
    rows = journal.read(
        Statement(chosen.limit(P("limit")).offset(P("offset"))),
        {**params, "limit": wanted.limit, "offset": wanted.offset},
    )
    sessions = [dict(zip((*_COLUMNS, *_MORE), row, strict=True)) for row in rows]
    counts = count_tool_calls(journal, [session["id"] for session in sessions])
    return [{**session, "tool_call_count": counts.get(session["id"], 0)} for session in sessions]


def _conditions(wanted: SessionPage) -> tuple[list[Any], dict[str, Any]]:
    """Agents that a user started. The newest runs are found along the index on project and time."""
    conditions = [R.project == P("project"), R.kind == literal_column("'agent'"), R.parent_id.is_(None)]
    params: dict[str, Any] = {"project": wanted.project}
    if wanted.agent is not None:
        conditions.append(R.name == P("agent"))
        params["agent"] = wanted.agent
    if wanted.since is not None:
        conditions.append(R.created_at >= P("since", type_=Float))
        params["since"] = wanted.since
    if wanted.until is not None:
        conditions.append(R.created_at < P("until", type_=Float))
        params["until"] = wanted.until
    return conditions, params


def count_tool_calls(journal: Connection, run_ids: Collection[str]) -> dict[str, int]:
    """Return how many tools each of these agents' runs called, where it called any."""
    if not run_ids:
        return {}
    params = {f"run_{place}": run_id for place, run_id in enumerate(run_ids)}
    chosen = (
        select(R.root_id, func.count())
        .where(R.root_id.in_([P(name) for name in params]), one_of(R.kind, ["tool"]))
        .group_by(R.root_id)
    )
    return {row[0]: row[1] for row in journal.read(Statement(chosen), params)}


LONGEST_TIMELINE = 1_000  # turns, and as many tool calls
TURN_SUMS = ("calls", "unpriced_calls", "input_tokens", "output_tokens", "cached_tokens", "cost")
_TURN_COLUMNS = ("name", "status", "output", "error", "started_at", "finished_at", *TURN_SUMS)
_CALL_COLUMNS = ("id", "name", "status", "error", "input", "output", "created_at", "finished_at")
_READ_TURNS = Statement(
    select(*(S[name] for name in _TURN_COLUMNS))
    .where(S.run_id == P("run"), one_of(S.kind, ["turn"]))
    .order_by(S.position)
    .limit(LONGEST_TIMELINE)
)
_READ_CALLS = Statement(
    select(*(R[name] for name in _CALL_COLUMNS))
    .where(R.parent_id == P("run"), one_of(R.kind, ["tool"]))
    .order_by(R.created_at)
    .limit(LONGEST_TIMELINE)
)


def read_turns(journal: Connection, run_id: str) -> list[dict[str, Any]]:
    """Return the model calls of a run by column name, in order."""
    return [dict(zip(_TURN_COLUMNS, row, strict=True)) for row in journal.read(_READ_TURNS, {"run": run_id})]


def read_tool_calls(journal: Connection, run_id: str) -> list[dict[str, Any]]:
    """Return the runs of the tools that a run called by column name, in order."""
    return [dict(zip(_CALL_COLUMNS, row, strict=True)) for row in journal.read(_READ_CALLS, {"run": run_id})]
