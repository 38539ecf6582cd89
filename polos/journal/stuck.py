"""Rows in states that nothing would ever move: how to find each kind, and how to mend it.

No code of ours makes such rows. They come of a mistake, of a hand in the database or of a backup; each would
be a run that stands for ever without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    Float,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.closing import EVENT_WAITS, close_run
from polos.journal.closing import W as EW
from polos.journal.runs import RUNS, WAKE_VALUES, R
from polos.journal.statements import Part, Statement, Unit, now, one_of
from polos.journal.states import LIVE, TERMINAL, QueueSlot, RunStatus, StepStatus
from polos.journal.steps import STEPS, S
from polos.journal.tables import ILLEGAL_RUN, ILLEGAL_STEP, Finding, QueueLimits
from polos.journal.workers import DEFINITIONS, D, W

P = bindparam
F = Finding.__table__.c  # type: ignore[attr-defined]
FINDINGS = Finding.__table__  # type: ignore[attr-defined]
Q = QueueLimits.__table__.c  # type: ignore[attr-defined]
MAX_FOUND = 200  # of a kind at a time
FAR_SECONDS = 600.0  # no promise to ring is later than this, beyond the time a run is not to begin before

_is_illegal_run = text(f"({ILLEGAL_RUN})")  # as the indexes say it, or they are not used
_is_illegal_step = text(f"({ILLEGAL_STEP})")
_is_open_step = one_of(S.status, (StepStatus.RUNNING, StepStatus.SCHEDULED))  # as their index says it
_is_pending = func.coalesce(R.slot, "").in_([literal_column("'deferred'"), literal_column("'wanted'")])
_has_ended = one_of(R.status, TERMINAL)


class Found(NamedTuple):
    """A row in such a state."""

    run_id: str
    step: str | None = None


@dataclass(frozen=True)
class Check:
    """One kind of such states.

    Attributes:
        name: What is wrong, as people read it.
        find: Answers rows of `Found`.
        mend: Makes the unit that puts it right, which answers nothing when it is right already. None: a
            person has to.
    """

    name: str
    find: Statement
    mend: Callable[[Found], Unit] | None


def _runs(*conditions: Any) -> Any:
    return select(R.id, literal_column("NULL")).where(*conditions).limit(literal_column(str(MAX_FOUND)))


def _steps(*conditions: Any) -> Any:
    return select(S.run_id, S.name).where(*conditions).limit(literal_column(str(MAX_FOUND)))


def _mending_run(*conditions: Any, **values: Any) -> Callable[[Found], Unit]:
    """Return how a run is given `values` while `conditions` hold."""
    statement = Statement(update(RUNS).where(R.id == P("run"), *conditions).values(**values).returning(R.id))
    return lambda found: Unit((Part(statement, {"run": found.run_id}),), (found.run_id,))


def _mending_step(*conditions: Any, **values: Any) -> Callable[[Found], Unit]:
    here = (S.run_id == P("run"), S.name == P("name"))
    statement = Statement(update(STEPS).where(*here, *conditions).values(**values).returning(S.run_id))
    return lambda found: Unit((Part(statement, {"run": found.run_id, "name": found.step}),), ())


def _check_run(name: str, *conditions: Any, **values: Any) -> Check:
    find = Statement(_runs(_is_illegal_run, *conditions))
    return Check(name, find, _mending_run(*conditions, **values))


def _check_step(name: str, *conditions: Any, **values: Any) -> Check:
    find = Statement(_steps(_is_illegal_step, *conditions))
    return Check(name, find, _mending_step(*conditions, **values))


# -- one run by itself

_QUEUED_AGAIN = {"status": RunStatus.QUEUED.value, "claimed_at": None, "ring_at": now(), "rings": 0}
_is_running = R.status == RunStatus.RUNNING.value
_is_queued = R.status == RunStatus.QUEUED.value
_RUN_CHECKS = (
    _check_run("ended run without a time", _has_ended, R.finished_at.is_(None), finished_at=now()),
    _check_run("live run with a time of its end", ~_has_ended, R.finished_at.is_not(None), finished_at=None),
    _check_run("run owned though it is not running", ~_is_running, R.owner.is_not(None), owner=None),
    _check_run("running run without an owner", _is_running, R.owner.is_(None), **_QUEUED_AGAIN),
    _check_run(
        "queued run that nobody rings", _is_queued, R.ring_at.is_(None), ~_is_pending, ring_at=now(), rings=0
    ),
    _check_run(
        "pending run that is rung",
        _is_queued,
        R.ring_at.is_not(None),
        R.not_before.is_(None),
        _is_pending,
        ring_at=None,
    ),
    _check_run("ended run that is rung", _has_ended, R.ring_at.is_not(None), ring_at=None),
    _check_run("slot held by an ended run", _has_ended, R.slot == QueueSlot.HELD.value, slot=None),
)
READ_ANY_ILLEGAL = Statement(
    select(
        exists(select(R.id).where(_is_illegal_run)),
        exists(select(S.run_id).where(_is_illegal_step)),
    )
)

_STEP_CHECKS = (
    _check_step(
        "scheduled turn that nobody rings",
        S.status == StepStatus.SCHEDULED.value,
        S.ring_at.is_(None),
        ring_at=now(),
        rings=0,
    ),
    _check_step(
        "running turn without an owner",
        S.status == StepStatus.RUNNING.value,
        S.kind == "turn",
        S.owner.is_(None),
        status=StepStatus.SCHEDULED.value,
        ring_at=now(),
        rings=0,
    ),
    _check_step(
        "timer without a time",
        S.status == StepStatus.RUNNING.value,
        S.kind == "timer",
        S.ring_at.is_(None),
        ring_at=func.coalesce(S.not_before, now()),
    ),
)

# -- promises too far away

_latest = func.coalesce(R.not_before, 0.0)
_far = select(now() + P("far", type_=Float)).scalar_subquery()
_is_far = and_(R.ring_at > _latest + P("far", type_=Float), R.ring_at > _far)
_FAR = Check(
    "queued run rung only in a distant future",
    Statement(_runs(R.ring_at.is_not(None), R.ring_at > _far, _is_queued, _is_far)),
    _mending_run(_is_queued, R.ring_at.is_not(None), ring_at=now(), rings=0),
)

# -- runs, their steps and their children

_open_step = STEPS.alias("open_step")
_another = RUNS.alias("another")
_some_open = exists().where(
    _open_step.c.run_id == R.id, one_of(_open_step.c.status, (StepStatus.RUNNING, StepStatus.SCHEDULED))
)
_is_parked = R.status == literal_column("'waiting'")
_WAKE_IDLE = Statement(
    update(RUNS).where(R.id == P("run"), _is_parked, ~_some_open).values(**WAKE_VALUES).returning(R.id)
)
_woken_at = select(R.seq).where(R.id == P("run"), _is_queued).scalar_subquery()
_GIVE_SEQ = Statement(
    update(STEPS)
    .where(
        S.run_id == P("run"),
        S.seq.is_(None),
        one_of(S.status, (StepStatus.COMPLETED, StepStatus.FAILED)),
        _woken_at.is_not(None),
    )
    .values(seq=_woken_at)
)


def _wake_idle(found: Found) -> Unit:
    """Let a run look at its journal again, with outcomes that it was never told of."""
    params = {"run": found.run_id, "ring_again": 0.0}
    parts = (Part(_WAKE_IDLE, params), Part(_GIVE_SEQ, params, guard=False))
    return Unit(parts, (found.run_id,), locks_first=True)


_child_lives = exists().where(_another.c.id == S.child_id, one_of(_another.c.status, LIVE))
_its_run_lives = exists().where(R.id == S.run_id, one_of(R.status, LIVE))
_unheard = (_is_open_step, S.kind == "child", ~_child_lives)
_still_unheard = exists().where(S.run_id == P("run"), S.name == P("name"), *_unheard)
_WAKE_PARENT = Statement(
    update(RUNS)
    .where(R.id == P("run"), one_of(R.status, LIVE), _still_unheard)
    .values(**WAKE_VALUES)
    .returning(R.id)
)


def _of_child(column: Any) -> Any:
    return select(column).where(_another.c.id == S.child_id).scalar_subquery()


_DELIVER = Statement(
    update(STEPS)
    .where(S.run_id == P("run"), S.name == P("name"), *_unheard, _its_run_lives)
    .values(
        status=case(
            (_of_child(_another.c.status) == RunStatus.COMPLETED.value, StepStatus.COMPLETED.value),
            else_=StepStatus.FAILED.value,
        ),
        output=_of_child(_another.c.output),
        output_schema=_of_child(_another.c.output_schema),
        error=case(
            (_of_child(_another.c.status) == RunStatus.COMPLETED.value, None),
            else_=func.coalesce(_of_child(_another.c.error), "the child run is not in the journal"),
        ),
        seq=select(R.seq).where(R.id == P("run")).scalar_subquery(),
        ring_at=None,
        finished_at=now(),
    )
)


def deliver_child(run_id: str, step: str) -> Unit:
    """Give a step the outcome of its child, which has ended; answers nothing if there is nothing to give."""
    params = {"run": run_id, "name": step, "ring_again": 0.0}
    parts = (Part(_WAKE_PARENT, params), Part(_DELIVER, params, guard=False))
    return Unit(parts, (run_id,), locks_first=True)


_parent_ended = exists().where(
    _another.c.id == R.parent_id,
    or_(
        and_(one_of(_another.c.status, TERMINAL), R.awaited == 1),
        _another.c.status == RunStatus.CANCELLED.value,
    ),
)
_holds = exists().where(
    Q.project == R.project, Q.deployment == R.deployment, Q.name == R.queue, Q.hold_while_waiting == 1
)
_waits_with_slot = (R.slot == literal_column("'held'"), _is_parked, ~_holds)
_CROSS_CHECKS = (
    Check("waiting run that waits for nothing", Statement(_runs(_is_parked, ~_some_open)), _wake_idle),
    Check(
        "step that waits for a child that has ended",
        Statement(_steps(*_unheard, _its_run_lives)),
        lambda found: deliver_child(found.run_id, found.step or ""),
    ),
    Check(
        "open step of an ended run",
        Statement(_steps(_is_open_step, exists().where(R.id == S.run_id, _has_ended))),
        lambda found: close_run(found.run_id),
    ),
    Check(
        "slot held by a waiting run",
        Statement(_runs(*_waits_with_slot)),
        _mending_run(*_waits_with_slot, slot=QueueSlot.RELEASED.value),
    ),
)
ORPHANS = Check(
    "child that is live though nobody waits for it any more",
    Statement(_runs(R.parent_id.is_not(None), R.finished_at.is_(None), _parent_ended)),
    None,
)

# -- rows beside runs

_it_waits = exists().where(S.run_id == EW.run_id, S.name == EW.step, _is_open_step)
_DROP_WAIT = Statement(
    delete(EVENT_WAITS).where(EW.run_id == P("run"), EW.step == P("name"), ~_it_waits).returning(EW.run_id)
)
_is_offered = exists().where(W.id == D.worker_id)
_DROP_OFFERS = Statement(delete(DEFINITIONS).where(D.worker_id == P("run"), ~_is_offered).returning(D.name))
_ROW_CHECKS = (
    Check(
        "wait for an event that no step waits for",
        Statement(select(EW.run_id, EW.step).where(~_it_waits).limit(literal_column(str(MAX_FOUND)))),
        lambda found: Unit((Part(_DROP_WAIT, {"run": found.run_id, "name": found.step}),), ()),
    ),
    Check(
        "step that waits for an event nobody would tell it of",
        Statement(
            _steps(
                _is_open_step,
                S.kind == "event",
                S.ring_at.is_(None),
                ~exists().where(S.run_id == EW.run_id, S.name == EW.step),
            )
        ),
        None,
    ),
    Check(
        "definitions of no worker",
        Statement(select(D.worker_id, literal_column("NULL")).where(~_is_offered).distinct()),
        lambda found: Unit((Part(_DROP_OFFERS, {"run": found.run_id}),), ()),
    ),
)

CHECKS = (_FAR, *_CROSS_CHECKS, *_ROW_CHECKS)  # each look
ROW_CHECKS = (*_RUN_CHECKS, *_STEP_CHECKS)  # only when `READ_ANY_ILLEGAL` answers that there is something
CHECK_PARAMS = {"far": FAR_SECONDS}

# -- what was found

_COUNT = Statement(
    upsert(FINDINGS)
    .values(name=P("name"), count=1, run_id=P("run"), step=P("step"), found_at=now())
    .on_conflict_do_update(
        index_elements=["name"],
        set_={
            "count": F.count + literal_column("1"),
            "run_id": P("run"),
            "step": P("step"),
            "found_at": now(),
        },
    )
)
READ_FINDINGS = Statement(
    select(F.name, F.count, F.run_id, F.step, F.found_at, now()).order_by(F.found_at.desc())
)


def count_finding(name: str, found: Found) -> Unit:
    """Count what was found; people read it by `READ_FINDINGS`."""
    params = {"name": name, "run": found.run_id, "step": found.step}
    return Unit((Part(_COUNT, params, guard=False),), ())
