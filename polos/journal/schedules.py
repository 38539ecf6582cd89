"""Units and reads on schedules: declare, change, fire. A tick and its run are one transaction."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import (
    Float,
    Integer,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.precedence import left_behind, may_take
from polos.journal.runs import RUNS, NewRun
from polos.journal.starts import start_if, start_params
from polos.journal.statements import Part, Row, Statement, Unit, now, texts_of
from polos.journal.tables import Schedule

S = Schedule.__table__.c  # type: ignore[attr-defined]
SCHEDULES = Schedule.__table__  # type: ignore[attr-defined]
P = bindparam
ACTIVE, PAUSED, INACTIVE = "active", "paused", "inactive"
MAX_DUE = 50  # fired in one transaction
_SPACE = uuid.UUID("3c1d3c0e-6d0b-4a5e-9a1f-0f6f7f1d2c11")
# Asked once a statement: an index cannot be searched for what a volatile function may answer row by row.
_MOMENT = select(now()).scalar_subquery()


@dataclass(frozen=True)
class NewSchedule:
    """A schedule to create or change. `next_at` is its first tick, in seconds since the epoch."""

    project: str
    workflow: str
    key: str
    cron: str
    timezone: str
    catch_up: str
    deployment: str
    kind: str
    route: str
    next_at: float | None
    declared_by: str | None = None

    @property
    def id(self) -> str:
        """The same for the same workflow and key, so that it outlives deletion."""
        return str(uuid.uuid5(_SPACE, f"{self.project}\0{self.workflow}\0{self.key}"))


@dataclass(frozen=True)
class DueSchedule:
    """A schedule whose next tick has come; times in seconds since the epoch, by the database's clock."""

    id: str
    project: str
    workflow: str
    key: str
    cron: str
    timezone: str
    catch_up: str
    declared_by: str | None
    deployment: str
    kind: str
    route: str
    next_at: float
    last_at: float | None
    now: float

    def run_id(self, tick: float) -> str:
        """Return the id of the run of a tick: whoever fires it, it is the same run."""
        return str(uuid.uuid5(_SPACE, f"{self.id}\0{tick!r}"))


# -- made and changed

_same_times = and_(S.cron == P("cron"), S.timezone == P("timezone"))
_FROM_NOW_ON = case(
    (S.status == PAUSED, None),
    (and_(_same_times, S.status == ACTIVE, S.next_at.is_not(None)), S.next_at),
    else_=P("next_at", type_=Float),
)
_GIVEN = ("cron", "timezone", "catch_up", "deployment", "kind", "route", "declared_by")


def _put(*conditions: Any) -> Statement:
    new: dict[str, Any] = {spec.name: P(spec.name, type_=S[spec.name].type) for spec in fields(NewSchedule)}
    insert = upsert(SCHEDULES).values(
        id=P("id"), **new, status=literal(ACTIVE), created_at=now(), updated_at=now()
    )
    changes = {
        **{name: P(name, type_=S[name].type) for name in _GIVEN},
        "next_at": _FROM_NOW_ON,
        "status": case((S.status == INACTIVE, ACTIVE), else_=S.status),
        "updated_at": now(),
    }
    conditional = and_(*conditions) if conditions else None
    return Statement(
        insert.on_conflict_do_update(
            index_elements=["project", "workflow", "key"], set_=changes, where=conditional
        ).returning(S.id)
    )


_PUT = _put()
_DECLARE = _put(may_take("schedule"))


def put_schedule(new: NewSchedule) -> Unit:
    """Create a schedule, or change the one with its workflow and key, paused if it is so; answers (id,)."""
    params = {"id": new.id, **vars(new)}
    return Unit((Part(_PUT, params),), (), order=(new.id,))


def declare_schedule(new: NewSchedule, *, silence: float) -> Unit:
    """Do the same for code of a deployment, where no newer one has the say."""
    params = {"id": new.id, **vars(new), "silence": silence}
    return Unit((Part(_DECLARE, params),), (), order=(new.id,))


_ADOPT = Statement(
    update(SCHEDULES)
    .where(
        S.project == P("project"),
        S.workflow == P("workflow"),
        or_(S.deployment != P("deployment"), S.route != P("route"), S.kind != P("kind")),
        may_take("schedule"),
    )
    .values(deployment=P("deployment"), route=P("route"), kind=P("kind"))
)


def adopt_schedules(
    project: str, workflow: str, *, deployment: str, kind: str, route: str, silence: float
) -> Unit:
    """Send the runs of a workflow's schedules to a deployment that offers it, where no newer one does."""
    params = {
        "project": project,
        "workflow": workflow,
        "deployment": deployment,
        "kind": kind,
        "route": route,
        "silence": silence,
    }
    return Unit((Part(_ADOPT, params, guard=False),), (), order=(workflow,))


_is_no_longer_declared = and_(
    S.workflow.op("IN")(texts_of(P("offered", type_=S.workflow.type))),
    S.id.op("NOT IN")(texts_of(P("declared", type_=S.id.type))),
    may_take("schedule"),
)
_WITHDRAW = Statement(
    update(SCHEDULES)
    .where(
        S.project == P("project"),
        S.declared_by.is_not(None),
        S.status != INACTIVE,
        or_(_is_no_longer_declared, left_behind("schedule")),
    )
    .values(status=INACTIVE, next_at=None, updated_at=now())
    .returning(S.workflow, S.key)
)


def withdraw_schedules(project: str, *, deployment: str, offered: str, declared: str, silence: float) -> Unit:
    """Deactivate what code declared once and does not any more; answers (workflow, key) of each.

    Args:
        project: Whose.
        deployment: Whose worker starts.
        offered: JSON list of the workflows it offers.
        declared: JSON list of the ids of the schedules it declares.
        silence: Seconds after which a worker counts as gone.
    """
    params = {
        "project": project,
        "deployment": deployment,
        "offered": offered,
        "declared": declared,
        "silence": silence,
    }
    return Unit((Part(_WITHDRAW, params),), (), order=(project,))


_SET_STATUS = Statement(
    update(SCHEDULES)
    .where(S.project == P("project"), S.id == P("id"), S.status != P("status"))
    .values(status=P("status"), next_at=P("next_at", type_=Float), updated_at=now())
    .returning(S.id)
)
_DELETE = Statement(delete(SCHEDULES).where(S.project == P("project"), S.id == P("id")).returning(S.id))


def set_schedule_status(project: str, schedule_id: str, status: str, *, next_at: float | None) -> Unit:
    """Pause a schedule, or let it go on with the tick at `next_at`; answers nothing if it is so already."""
    params = {"project": project, "id": schedule_id, "status": status, "next_at": next_at}
    return Unit((Part(_SET_STATUS, params),), (), order=(schedule_id,))


def delete_schedule(project: str, schedule_id: str) -> Unit:
    """Forget a schedule; answers nothing when there is none such. Runs it started go on."""
    return Unit((Part(_DELETE, {"project": project, "id": schedule_id}),), (), order=(schedule_id,))


# -- firing

_run = RUNS.alias("scheduled")
_is_free = ~exists().where(_run.c.schedule_id == S.id, _run.c.finished_at.is_(None))
_is_active = S.status == literal_column("'active'")  # as text, so that the index over active ones serves
_is_due = and_(_is_active, S.next_at <= _MOMENT)
_DUE_COLUMNS = [now() if spec.name == "now" else S[spec.name] for spec in fields(DueSchedule)]
READ_DUE_SCHEDULES = Statement(
    select(*_DUE_COLUMNS).where(_is_due, _is_free).order_by(S.next_at, S.id).limit(MAX_DUE)
)
READ_NEXT_TICK = Statement(select(func.min(S.next_at) - _MOMENT).where(_is_active, S.next_at > _MOMENT))
_MOVE_ON = Statement(
    update(SCHEDULES)
    .where(
        S.id == P("schedule_id"),
        S.status == ACTIVE,
        S.next_at == P("seen", type_=Float),
        S.cron == P("cron"),
        S.timezone == P("timezone"),
        _is_free,
    )
    .values(
        next_at=P("following", type_=Float),
        last_at=case((P("starts", type_=Integer) == 1, P("tick", type_=Float)), else_=S.last_at),
        last_run_id=case((P("starts", type_=Integer) == 1, P("id", type_=S.id.type)), else_=S.last_run_id),
    )
    .returning(S.id)
)
_START = start_if(exists().where(S.id == P("schedule_id"), S.last_run_id == P("id", type_=S.id.type)))


def fire_schedule(
    due: DueSchedule,
    new: NewRun,
    *,
    tick: float,
    following: float | None,
    ring_again: float,
    window: int,
) -> Unit:
    """Start the run of a tick and move on to the following one.

    Answers (run id, slot), nothing if others did.
    """
    params = {
        **_move(due, following),
        **start_params(new, ring_again=ring_again, window=window),
        "tick": tick,
        "starts": 1,
    }
    return Unit((Part(_MOVE_ON, params), Part(_START, params)), (new.id,), order=(new.id,), answer=1)


def pass_over(due: DueSchedule, *, following: float | None) -> Unit:
    """Move on to the following tick without a run."""
    params = {**_move(due, following), "tick": due.next_at, "starts": 0, "id": None}
    return Unit((Part(_MOVE_ON, params),), (), order=(due.id,))


def _move(due: DueSchedule, following: float | None) -> dict[str, Any]:
    return {
        "schedule_id": due.id,
        "seen": due.next_at,
        "cron": due.cron,
        "timezone": due.timezone,
        "following": following,
    }


def due_schedule(row: Row) -> DueSchedule:
    """Return a row of READ_DUE_SCHEDULES."""
    return DueSchedule(*row)


# -- reading

_SHOWN = list(SCHEDULES.c)
READ_SCHEDULES = Statement(
    select(*_SHOWN)
    .where(
        S.project == P("project"),
        or_(P("workflow", type_=S.workflow.type).is_(None), S.workflow == P("workflow")),
    )
    .order_by(S.workflow, S.key)
)
READ_SCHEDULE = Statement(select(*_SHOWN).where(S.project == P("project"), S.id == P("id")))


def schedule_record(row: Row) -> dict[str, Any]:
    """Return a row of READ_SCHEDULES by column name."""
    return {column.name: value for column, value in zip(_SHOWN, row, strict=True)}
