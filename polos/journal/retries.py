"""Units that let an ended run go on: a person's retry of a root, and what its replay takes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, case, delete, exists, null, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.creating import has_limits
from polos.journal.events import EVENTS, E
from polos.journal.runs import FENCE, RUNS, Q, R, fence, ringing_from_now
from polos.journal.statements import Part, Statement, Unit, now, one_of
from polos.journal.states import QueueSlot, RunStatus, StepStatus
from polos.journal.steps import STEPS, S

P = bindparam
RETRIED = (RunStatus.FAILED, RunStatus.CANCELLED)

_is_ended = one_of(R.status, RETRIED)
_again = RUNS.alias("again")
_is_limited = exists().where(
    Q.project == R.project, Q.deployment == R.deployment, Q.name == R.queue, has_limits()
)
_GO_ON: dict[str, Any] = {
    "status": RunStatus.QUEUED.value,
    "attempt": R.attempt + 1,  # whoever still executes it is fenced
    "retried_seq": R.seq,
    "slot": case((_is_limited, QueueSlot.WANTED.value), else_=None),
    "ring_at": case((_is_limited, None), else_=ringing_from_now()),
    **dict.fromkeys(("retries", "crashes", "rings", "running_seconds"), 0),
    **dict.fromkeys(
        (
            "owner",
            "claimed_at",
            "not_before",
            "finished_at",
            "ended_event",
            "output",
            "output_schema",
            "final_state",
            "error",
            "cancelled_by",
        )
    ),
}


def _tell_retry(run_id: Any, *conditions: Any) -> Statement:
    """Put an event in the place of the end that was none: numbers have no holes."""
    columns = {
        "project": _again.c.project,
        "topic": P("topic", type_=E.topic.type),
        "number": _again.c.ended_event,
        "type": P("event_type", type_=E.type.type),
        "data": P("event_data", type_=E.data.type),
        "run_id": _again.c.id,
        "hops": _again.c.hops,
        "created_at": now(),
    }
    told = select(*columns.values()).where(
        _again.c.id == run_id,
        _again.c.ended_event.is_not(None),
        one_of(_again.c.status, RETRIED),
        *conditions,
    )
    return Statement(upsert(EVENTS).from_select(list(columns), told).on_conflict_do_nothing())


_TELL_RETRY = _tell_retry(P("run"))
_RETRY = Statement(
    update(RUNS)
    .where(R.id == P("run"), R.parent_id.is_(None), _is_ended)
    .values(**_GO_ON)
    .returning(R.id, R.ring_at)
)


def retry_ended(run_id: str, *, event: tuple[str, str], topic: str, ring_again: float) -> Unit:
    """Let a failed or cancelled root go on from its journal; answers (id, when rung), or nothing.

    Not rung: it waits for a slot of its queue. `event`: type and JSON data of what stands in the stream
    instead of the end.
    """
    params = {
        "run": run_id,
        "event_type": event[0],
        "event_data": event[1],
        "topic": topic,
        "ring_again": ring_again,
    }
    parts = (Part(_TELL_RETRY, params, guard=False), Part(_RETRY, params))
    return Unit(parts, (run_id,), order=(run_id,), answer=1, locks_first=True)


# -- what the replay of a retried run takes back, under its fence

_this = (S.run_id == P("run"), S.name == P("name"))
_is_fenced = exists().where(*fence())
_told = {
    "project": R.project,
    "topic": P("topic", type_=E.topic.type),
    "number": S.event,
    "type": P("step_event_type", type_=E.type.type),
    "data": P("step_event_data", type_=E.data.type),
    "run_id": R.id,
    "hops": R.hops,
    "created_at": now(),
}
_TELL_STEP = Statement(
    upsert(EVENTS)
    .from_select(
        list(_told),
        select(*_told.values())
        .join_from(STEPS, RUNS, S.run_id == R.id)
        .where(*_this, *fence(), S.event.is_not(None)),
    )
    .on_conflict_do_nothing()
)
_TAKE_BACK = Statement(delete(STEPS).where(*_this, _is_fenced))


@dataclass(frozen=True)
class OldStep:
    """A step of a retried run, to be taken back by the attempt that replays it.

    Attributes:
        topic: Of its tree.
        event: Type and JSON data of what stands in the stream instead of the step's end.
    """

    run_id: str
    attempt: int
    name: str
    topic: str
    event: tuple[str, str]

    def params(self) -> dict[str, Any]:
        """Return the parameters of the statements on it."""
        return {
            "run": self.run_id,
            "attempt": self.attempt,
            "name": self.name,
            "topic": self.topic,
            "step_event_type": self.event[0],
            "step_event_data": self.event[1],
        }


def take_back(step: OldStep) -> Unit:
    """Forget a step that failed, so that it is begun anew; answers (seq,), or nothing when fenced."""
    return _unit(step, step.params(), _TAKE_BACK)


def _unit(step: OldStep, params: dict[str, Any], *statements: Statement, locks: tuple[str, ...] = ()) -> Unit:
    rest = (Part(statement, params, guard=False) for statement in (_TELL_STEP, *statements))
    return Unit(
        (Part(FENCE, params), *rest),
        (step.run_id, *locks),
        order=(step.run_id, step.name),
        locks_first=bool(locks),
    )


_REOPEN = Statement(
    update(STEPS)
    .where(*_this, _is_fenced)
    .values(
        status=case((S.kind == "turn", StepStatus.SCHEDULED.value), else_=StepStatus.RUNNING.value),
        ring_at=case((S.kind == "turn", now()), (S.kind == "timer", S.not_before), else_=None),
        tries=case((S.kind == "turn", 0), else_=S.tries),
        crashes=0,  # else a turn that was worker_lost is so again, unasked
        # Attempts, and the models that are asked in them, are counted anew.
        failures=case((S.kind == "turn", null()), else_=S.failures),
        not_before=case((S.kind == "turn", null()), else_=S.not_before),
        ticket=null(),
        **dict.fromkeys(("seq", "event", "owner", "output", "output_schema", "error", "finished_at")),
    )
)


def reopen(step: OldStep) -> Unit:
    """Let a step go on where it was; a turn is made again. Answers (seq,), or nothing when fenced."""
    return _unit(step, step.params(), _REOPEN)


_child_is_ended = (R.id == P("child"), R.parent_id == P("run"), _is_ended)
_is_fenced_parent = exists().where(
    _again.c.id == P("run"),
    _again.c.attempt == P("attempt"),
    _again.c.status == RunStatus.RUNNING.value,
)
_TELL_CHILD_RETRY = _tell_retry(P("child"), _is_fenced)
_RETRY_CHILD = Statement(update(RUNS).where(*_child_is_ended, _is_fenced_parent).values(**_GO_ON))


def reopen_child(step: OldStep, child_id: str, *, event: tuple[str, str]) -> Unit:
    """Let a child that failed or was cancelled go on, and its parent wait for it; answers as `reopen`.

    `event`: type and JSON data of what stands in the stream instead of the child's end.
    """
    params = {
        **step.params(),
        "child": child_id,
        "event_type": event[0],
        "event_data": event[1],
        "ring_again": 0.0,
    }
    return _unit(step, params, _REOPEN, _TELL_CHILD_RETRY, _RETRY_CHILD, locks=(child_id,))
