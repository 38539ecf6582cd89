"""Allowances in the journal, for the time in which Redis is away: read, then written if nobody was faster."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Float, Integer, bindparam, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.allowances import KEPT_SECONDS, Allowance, Answer, Question, answer, corrected, paused
from polos.journal.runs import R
from polos.journal.statements import Part, Row, Statement, Unit, latest, now
from polos.journal.states import StepStatus
from polos.journal.steps import STEPS, S
from polos.journal.tables import StoredAllowance
from polos.journal.writer import Journal

T = TypeVar("T")
P = bindparam
ALLOWANCES = StoredAllowance.__table__  # type: ignore[attr-defined]
A = ALLOWANCES.c
MAX_FORGOTTEN = 200  # in one batch
LONGEST_PAUSE_SECONDS = 0.02  # before another look, when somebody was faster
_FIELDS = ("gate", "tail", "lag", "paused")
_key = (A.project == P("project"), A.name == P("name"))
_READ = Statement(
    select(now(), *(select(A[name]).where(*_key).scalar_subquery() for name in ("version", *_FIELDS)))
)
_values = {name: P(name, type_=A[name].type) for name in _FIELDS}
_CHANGE = Statement(
    update(ALLOWANCES)
    .where(*_key, A.version == P("seen", type_=Integer))
    .values(**_values, version=A.version + 1)
    .returning(A.version)
)
_CREATE = Statement(
    upsert(ALLOWANCES)
    .values(project=P("project"), name=P("name"), version=0, **_values)
    .on_conflict_do_nothing()
    .returning(A.version)
)
READ_ALLOWANCES = Statement(
    select(now(), A.name, *(A[name] for name in _FIELDS)).where(A.project == P("project")).order_by(A.name)
)

_last_moment = latest(A.gate, latest(A.tail + A.lag, A.paused))
_old = select(A.project, A.name).where(_last_moment < now() - P("kept", type_=Float)).limit(P("limit"))
_FORGET_OLD = Statement(
    delete(ALLOWANCES)
    .where(tuple_(A.project, A.name).in_(_old), _last_moment < now() - P("kept", type_=Float))
    .returning(A.name)
)
COUNT_WAITING_TURNS = Statement(
    select(func.count())
    .select_from(STEPS)
    .where(
        S.ring_at.is_not(None),
        S.status == StepStatus.SCHEDULED.value,
        S.ticket.is_not(None),
        select(R.project).where(R.id == S.run_id).scalar_subquery() == P("project"),
    )
)


def change_allowance(project: str, name: str, state: Allowance, *, seen: int | None) -> Unit:
    """Store a state, unless anybody has since version `seen`, None for no row; answers (version,) if so."""
    params = {"project": project, "name": name, **{field: getattr(state, field) for field in _FIELDS}}
    part = Part(_CREATE, params) if seen is None else Part(_CHANGE, {**params, "seen": seen})
    return Unit((part,), (), order=("", name))


def forget_old_allowances(*, kept_seconds: float = KEPT_SECONDS, limit: int = MAX_FORGOTTEN) -> Unit:
    """Remove allowances that nobody has waited for so long, as Redis does; answers a row for each."""
    return Unit((Part(_FORGET_OLD, {"kept": kept_seconds, "limit": limit}),), ())


class JournalAllowances:
    """The allowances of one project, for the workers that share its journal."""

    def __init__(self, journal: Journal, project: str) -> None:
        self._journal = journal
        self._project = project
        self._locks: dict[str, asyncio.Lock] = {}  # so that only other processes are ever faster

    async def ask(self, name: str, question: Question) -> Answer:
        """Return what `question` comes to."""
        return await self._change(name, lambda state, at: answer(state, question, at))

    async def pause(self, name: str, seconds: float) -> None:
        """Let nothing begin for so long."""
        await self._change(name, lambda state, at: (paused(state, seconds, at), None))

    async def correct(self, name: str, seconds: float) -> None:
        """Count so many seconds more, or less."""
        await self._change(name, lambda state, at: (corrected(state, seconds), None))

    async def _change(self, name: str, change: Callable[[Allowance, float], tuple[Allowance, T]]) -> T:
        async with self._locks.setdefault(name, asyncio.Lock()):
            while True:
                [row] = await self._journal.read(_READ, project=self._project, name=name)
                at, seen, state = _read(row)
                after, found = change(state, at)
                unit = change_allowance(self._project, name, after, seen=seen)
                if await self._journal.do(unit):
                    return found
                await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))


def _read(row: Row) -> tuple[float, int | None, Allowance]:
    at, version, *fields = row
    return at, version, Allowance() if version is None else Allowance(*fields)
