"""Units on turns: whoever claims one executes it, and its end wakes the run whose turn it is."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Float, bindparam, case, exists, literal, or_, select, update

from polos.journal.ends import is_ours, last_event, number_event
from polos.journal.runs import ANY_CRASHES, RUNS, WAKE_VALUES, R, fence, is_live, ringing_from_now
from polos.journal.spending import NOTHING, SPENT_VALUES, Spent
from polos.journal.statements import Part, Statement, Unit, now, one_of
from polos.journal.states import LIVE, StepStatus
from polos.journal.steps import STEPS, Outcome, S, insert_step

P = bindparam


@dataclass(frozen=True)
class TurnClaim:
    """A turn this worker now executes."""

    run_id: str
    name: str
    attempt: int
    tries: int
    crashes: int
    position: int
    failures: str | None
    uncounted_calls: int = 1
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: float | None = None
    ticket: float | None = None

    @property
    def spent(self) -> Spent:
        """What earlier attempts used, as far as it is counted."""
        return Spent(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_tokens=self.cached_tokens,
            cost=self.cost,
        )

    @property
    def interrupted_calls(self) -> int:
        """How many earlier attempts ended without anyone counting what they used."""
        return max(self.uncounted_calls - 1, 0)


_TURN_COLUMNS = [S[spec.name] for spec in fields(TurnClaim)]
_turn = (S.run_id == P("run"), S.name == P("name"))
_CLAIM_TURN = Statement(
    update(STEPS)
    .where(
        *_turn,
        S.status == StepStatus.SCHEDULED.value,
        or_(S.not_before.is_(None), S.not_before <= now()),
        is_live(P("run", type_=S.run_id.type)),
        S.crashes <= P("crashes", type_=S.crashes.type),
    )
    .values(
        status=StepStatus.RUNNING.value,
        attempt=S.attempt + 1,
        tries=S.tries + 1,
        uncounted_calls=S.uncounted_calls + 1,
        owner=P("worker"),
        started_at=now(),
        ring_at=None,
        not_before=None,
        rings=0,
    )
    .returning(*_TURN_COLUMNS)
)
_TURN_CLAIMED = Statement(
    select(*_TURN_COLUMNS).where(*_turn, S.status == StepStatus.RUNNING.value, S.owner == P("worker"))
)


def claim_turn(
    run_id: str, name: str, worker: str, *, project: str, deployment: str, crashes: int = ANY_CRASHES
) -> Unit:
    """Take a scheduled turn of this deployment; answers with the columns of `TurnClaim`, or nothing.

    `crashes`: Only if no more workers than this died while they executed it.
    """
    place = {"project": project, "deployment": deployment}
    params = {"run": run_id, "name": name, "worker": worker, "crashes": crashes, **place}
    return Unit((Part(_CLAIM_TURN, params),), (), order=(run_id, name), check=Part(_TURN_CLAIMED, params))


_mine = (*_turn, S.attempt == P("attempt"), S.owner == P("worker"), S.status == StepStatus.RUNNING.value)
_held_step = STEPS.alias("held_step")
_still_mine = exists().where(
    _held_step.c.run_id == P("run"),
    _held_step.c.name == P("name"),
    _held_step.c.attempt == P("attempt"),
    _held_step.c.owner == P("worker"),
    _held_step.c.status == StepStatus.RUNNING.value,
)
_wake_for_turn = update(RUNS).where(R.id == P("run"), one_of(R.status, LIVE), _still_mine)
# A root numbers the event itself; for a run below it, its root's row is changed first. What is not told yet
# gets no number.
_told = P("told", type_=R.event_seq.type)
_WAKE_ROOT_FOR_TURN = _wake_for_turn.values(**WAKE_VALUES, event_seq=R.event_seq + _told).returning(
    R.status, R.owner, R.seq, R.event_seq
)
_WAKE_CHILD_FOR_TURN = _wake_for_turn.values(**WAKE_VALUES).returning(
    R.status, R.owner, R.seq, last_event(P("root", type_=R.id.type))
)
_turn_wakes = RUNS.alias("turn_wakes")
_run_lives = exists().where(_turn_wakes.c.id == P("run"), one_of(_turn_wakes.c.status, LIVE))
_NUMBER_TURN = number_event(_told == 1, _still_mine, _run_lives)
_TURN_ENDED: dict[str, Any] = {
    "status": P("outcome"),
    "output": P("output"),
    "error": P("error"),
    "failures": P("failures"),
    "ring_at": None,
    "finished_at": now(),
    **SPENT_VALUES,
}
_COMPLETE_TURN = (
    update(STEPS)
    .where(*_mine, _run_lives)
    .values(
        **_TURN_ENDED,
        seq=select(R.seq).where(R.id == P("run")).scalar_subquery(),
        event=case((_told == 1, last_event(P("root", type_=R.id.type))), else_=None),
    )
)
_woken = _WAKE_ROOT_FOR_TURN.cte("woken")
_completed = (
    update(STEPS)
    .where(*_mine)
    .values(**_TURN_ENDED, seq=_woken.c.seq, event=case((_told == 1, _woken.c.event_seq), else_=None))
    .returning(S.seq)
    .cte("completed")
)
_COMPLETE_FUSED = Statement(
    select(_woken.c.status, _woken.c.owner, _woken.c.seq, _woken.c.event_seq).where(
        _completed.c.seq == _woken.c.seq
    )
)
_WAKE_ROOT_ALONE = Statement(_WAKE_ROOT_FOR_TURN)
_WAKE_CHILD_ALONE = Statement(_WAKE_CHILD_FOR_TURN)
_COMPLETE_TURN_ALONE = Statement(_COMPLETE_TURN)
_TURN_DONE = Statement(
    select(R.status, R.owner, S.seq, S.event)
    .join_from(STEPS, RUNS, S.run_id == R.id)
    .where(*_turn, S.attempt == P("attempt"), S.owner == P("worker"), S.status == P("outcome"))
)


def complete_turn(
    claim: TurnClaim,
    worker: str,
    outcome: Outcome,
    *,
    root_id: str,
    ring_again: float,
    told: bool = True,
    spent: Spent = NOTHING,
) -> Unit:
    """Store a turn's outcome, and what its calls used that are not counted yet, and wake its run.

    Answers (run status, owner, seq, number of the event in the tree), or nothing when fenced. One that is not
    `told` has no event, and the number means nothing; `settle_turn` tells it later.

    The step keeps its owner, so that a repeated unit recognises its own work.
    """
    params = {
        "run": claim.run_id,
        "root": root_id,
        "name": claim.name,
        "attempt": claim.attempt,
        "worker": worker,
        "outcome": outcome.status.value,
        "output": outcome.output,
        "error": outcome.error,
        "failures": outcome.failures,
        "ring_again": ring_again,
        "told": int(told),
        **spent.params(),
    }
    done = Part(_TURN_DONE, params)
    complete = Part(_COMPLETE_TURN_ALONE, params)
    if root_id == claim.run_id:
        return Unit(
            (Part(_WAKE_ROOT_ALONE, params), complete),
            (root_id,),
            fused=(Part(_COMPLETE_FUSED, params),),
            order=(root_id, claim.name),
            check=done,
        )
    return Unit(
        (Part(_NUMBER_TURN, params, guard=False), Part(_WAKE_CHILD_ALONE, params), complete),
        (root_id, claim.run_id),
        order=(root_id, claim.run_id, claim.name),
        answer=1,
        check=done,
    )


_RETRY_TURN = Statement(
    update(STEPS)
    .where(*_mine)
    .values(
        status=StepStatus.SCHEDULED.value,
        owner=None,
        error=P("error"),
        failures=P("failures"),
        **SPENT_VALUES,
        ticket=None,
        not_before=now() + P("delay", type_=Float),
        ring_at=now() + P("delay", type_=Float),
        rings=0,
    )
    .returning(S.attempt)
)


def retry_turn(
    claim: TurnClaim, worker: str, *, error: str, failures: str, delay: float, spent: Spent = NOTHING
) -> Unit:
    """Schedule a turn again after `delay` seconds, with the failed attempt and what it used on record."""
    params = {
        "run": claim.run_id,
        "name": claim.name,
        "attempt": claim.attempt,
        "worker": worker,
        "error": error,
        "failures": failures,
        "delay": delay,
        **spent.params(),
    }
    return Unit((Part(_RETRY_TURN, params),), (), order=(claim.run_id, claim.name))


_PUT_TURN_OFF = Statement(
    update(STEPS)
    .where(*_mine)
    .values(
        status=StepStatus.SCHEDULED.value,
        owner=None,
        tries=S.tries - 1,
        uncounted_calls=S.uncounted_calls - 1,
        ticket=P("ticket", type_=Float),
        not_before=now() + P("delay", type_=Float),
        ring_at=now() + P("delay", type_=Float),
        rings=0,
    )
    .returning(S.attempt)
)


def put_turn_off(claim: TurnClaim, worker: str, *, ticket: float | None, delay: float) -> Unit:
    """Schedule a turn for when its model may be asked, in `delay` seconds, with its place in line."""
    params = {
        "run": claim.run_id,
        "name": claim.name,
        "attempt": claim.attempt,
        "worker": worker,
        "ticket": ticket,
        "delay": delay,
    }
    return Unit((Part(_PUT_TURN_OFF, params),), (), order=(claim.run_id, claim.name))


_HAND_BACK_TURN = Statement(
    update(STEPS)
    .where(*_mine)
    .values(
        status=StepStatus.SCHEDULED.value,
        owner=None,
        tries=S.tries - 1,
        uncounted_calls=S.uncounted_calls - P("unsent", type_=S.uncounted_calls.type),
        ring_at=ringing_from_now(),
        rings=0,
    )
    .returning(S.attempt)
)


def hand_back_turn(claim: TurnClaim, worker: str, *, ring_again: float, was_sent: bool = False) -> Unit:
    """Give up a turn for a worker that ends; the caller rings.

    `was_sent`: its model was called, which counts though nobody heard the end of it.
    """
    params = {
        "run": claim.run_id,
        "name": claim.name,
        "attempt": claim.attempt,
        "worker": worker,
        "ring_again": ring_again,
        "unsent": int(not was_sent),
    }
    return Unit((Part(_HAND_BACK_TURN, params),), (), order=(claim.run_id, claim.name))


_of_turn = (S.run_id == P("run"), S.name == P("turn", type_=S.name.type))
_earlier = STEPS.alias("settled_earlier")
# Repeated because its answer was lost, the unit must not take another number.
_is_not_settled = ~exists().where(
    _earlier.c.run_id == P("run"), _earlier.c.name == P("name", type_=S.name.type)
)
_NUMBER_SETTLED = number_event(is_ours, _is_not_settled)
_tree_event = last_event(P("root", type_=R.id.type))
_SETTLE = Statement(
    update(RUNS)
    .where(*fence(), _is_not_settled)
    .values(seq=R.seq + 1, crashes=0, event_seq=R.event_seq + case((R.root_id == R.id, 1), else_=0))
    .returning(
        R.seq,
        case((R.root_id == R.id, R.event_seq), else_=_tree_event),
        select(S.attempt).where(*_of_turn).scalar_subquery(),
    )
)
_INSERT_SETTLED = Statement(
    insert_step(
        status=literal(StepStatus.COMPLETED.value),
        tries=literal(1),
        seq=R.seq,
        owner=P("worker", type_=S.owner.type),
        finished_at=now(),
    )
)
_SETTLE_TURN = Statement(
    update(STEPS).where(*_of_turn, S.event.is_(None), is_ours).values(output=P("output"), event=_tree_event)
)
_FORGET_QUESTIONS = Statement(
    update(STEPS)
    .where(S.run_id == P("run"), S.kind == "turn", S.name.like(P("questions")), is_ours)
    .values(input=P("nothing"))
)
_NOTHING_ALONE = '{"messages":[],"alone":true}'
_turn_settled = STEPS.alias("turn_settled")
_SETTLED = Statement(
    select(S.seq, _turn_settled.c.event, _turn_settled.c.attempt)
    .join_from(STEPS, _turn_settled, _turn_settled.c.run_id == S.run_id)
    .where(*_turn, S.owner == P("worker"), _turn_settled.c.name == P("turn", type_=S.name.type))
)


def settle_turn(
    run_id: str,
    attempt: int,
    name: str,
    *,
    position: int,
    turn: str,
    output: str,
    root_id: str,
    worker: str,
    questions: str | None = None,
) -> Unit:
    """Write over the outcome of a turn that was not told, and number its event; step `name` says it was done.

    What was asked in the turns beside it whose names begin with `questions` is forgotten.

    Answers (seq, number of the turn's event in the tree, the turn's attempt), or nothing when fenced.
    """
    params = {
        "run": run_id,
        "attempt": attempt,
        "name": name,
        "kind": "settle",
        "position": position,
        "turn": turn,
        "output": output,
        "root": root_id,
        "worker": worker,
    }
    number = (Part(_NUMBER_SETTLED, params, guard=False),) if root_id != run_id else ()
    writes = [Part(_INSERT_SETTLED, params, guard=False), Part(_SETTLE_TURN, params, guard=False)]
    if questions is not None:
        beside = {**params, "questions": f"{questions}%", "nothing": _NOTHING_ALONE}
        writes.append(Part(_FORGET_QUESTIONS, beside, guard=False))
    return Unit(
        (*number, Part(_SETTLE, params), *writes),
        tuple(dict.fromkeys((root_id, run_id))),
        order=(root_id, run_id, name),
        answer=len(number),
        check=Part(_SETTLED, params),
    )


READ_TURNS = Statement(
    select(S.name, S.position, S.input, S.output)
    .where(S.run_id == P("run"), S.kind == "turn", S.position <= P("until"))
    .order_by(S.position)
)
READ_OWNED_TURNS = Statement(
    select(S.run_id, S.name, S.attempt).where(
        S.owner == P("worker"), S.status == StepStatus.RUNNING.value, S.kind == "turn"
    )
)
