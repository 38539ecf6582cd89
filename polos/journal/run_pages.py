"""Pages of a project's runs, newest first, with their values as far as these are small."""

from __future__ import annotations

import base64
import binascii
import struct
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Float, bindparam, case, func, or_, select

from polos.journal.database import Connection
from polos.journal.runs import R
from polos.journal.statements import Statement

P = bindparam
SHOWN_CHARACTERS = 65_536  # of a value in a list; a larger one is asked for by its run's id
_COLUMNS = (
    "id",
    "root_id",
    "parent_id",
    "kind",
    "name",
    "deployment",
    "session_id",
    "user_id",
    "status",
    "error",
    "total_tokens",
    "cost",
    "created_at",
    "started_at",
    "finished_at",
)
_VALUES = ("input", "output")
_EQUAL = ("kind", "name", "session_id", "user_id")
_POSITION = struct.Struct(">d36s")  # created_at and id: exact, and of one length


@dataclass(frozen=True)
class RunPage:
    """Which runs of a project to return. What is None or empty restricts nothing.

    Attributes:
        since: Created at this time or later, in seconds since the epoch.
        until: Created before this time.
        after: Place (`place_at`) of the run that the page follows.
    """

    project: str
    limit: int
    offset: int = 0
    statuses: Collection[str] = ()
    kind: str | None = None
    name: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    roots_only: bool = False
    since: float | None = None
    until: float | None = None
    after: tuple[float, str] | None = None


def read_page(journal: Connection, wanted: RunPage) -> tuple[list[dict[str, Any]], str | None]:
    """Return the runs by column name, and the position of the last one if there are more.

    A value that is not shown is None, and named in ``omitted``.
    """
    conditions, params = _conditions(wanted)
    columns = [R[name] for name in _COLUMNS] + [part for name in _VALUES for part in _shown(name)]
    chosen = (
        select(*columns)
        .where(*conditions)
        .order_by(R.created_at.desc(), R.id.desc())
        .limit(P("limit"))
        .offset(P("offset"))
    )
    rows = journal.read(Statement(chosen), {**params, "limit": wanted.limit + 1, "offset": wanted.offset})
    runs = [_run(row) for row in rows[: wanted.limit]]
    return runs, position_of(runs[-1]) if len(rows) > wanted.limit else None


def position_of(run: dict[str, Any]) -> str:
    """Return the place of a run in the order of pages, as an opaque text."""
    packed = _POSITION.pack(run["created_at"], run["id"].encode())
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def place_at(position: str) -> tuple[float, str]:
    """Return what `position_of` made a text of.

    Raises:
        ValueError: It did not make this one.
    """
    try:
        packed = base64.b64decode(position + "=" * (-len(position) % 4), altchars=b"-_", validate=True)
        created_at, run_id = _POSITION.unpack(packed)
        return float(created_at), str(uuid.UUID(run_id.decode("ascii")))
    except (binascii.Error, struct.error, ValueError) as error:
        raise ValueError(f"cursor {position[:80]!r} is none of ours; leave it out to begin anew") from error


def _shown(name: str) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    is_small = func.length(R[name]) <= SHOWN_CHARACTERS
    return case((is_small, R[name])), case((or_(R[name].is_(None), is_small), 0), else_=1)


def _conditions(wanted: RunPage) -> tuple[list[ColumnElement[bool]], dict[str, Any]]:
    given = {name: getattr(wanted, name) for name in _EQUAL}
    params: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    conditions: list[ColumnElement[bool]] = [R[name] == P(name) for name in params]
    params["project"] = wanted.project
    conditions.insert(0, R.project == P("project"))
    if wanted.roots_only:
        conditions.append(R.parent_id.is_(None))
    if wanted.since is not None:
        conditions.append(R.created_at >= P("since", type_=Float))
        params["since"] = wanted.since
    if wanted.until is not None:
        conditions.append(R.created_at < P("until", type_=Float))
        params["until"] = wanted.until
    if wanted.after is not None:
        conditions.append(
            or_(
                R.created_at < P("after_time", type_=Float),
                (R.created_at == P("after_time", type_=Float)) & (R.id < P("after_id")),
            )
        )
        params["after_time"], params["after_id"] = wanted.after
    if wanted.statuses:
        statuses = {f"status_{place}": status for place, status in enumerate(sorted(wanted.statuses))}
        conditions.append(R.status.in_([P(name) for name in statuses]))
        params |= statuses
    return conditions, params


def _run(row: tuple[Any, ...]) -> dict[str, Any]:
    run = dict(zip(_COLUMNS, row, strict=False))
    values = row[len(_COLUMNS) :]
    run |= dict(zip(_VALUES, values[::2], strict=True))
    run["omitted"] = [name for name, is_left_out in zip(_VALUES, values[1::2], strict=True) if is_left_out]
    return run
