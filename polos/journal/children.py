"""Units that touch a run and its parent: create children, finish a child, cancel a run.

Lock order: parents before children. A child's completion and its parent's step are one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Float, bindparam, case, exists, literal, literal_column, select, true, update
from sqlalchemy.dialects.postgresql import insert as upsert

from polos.journal.closing import closing_parts
from polos.journal.creating import COUNTERS, PLACE_SECONDS, has_limits
from polos.journal.ends import ENDING_VALUES, FINISHED, NUMBER_END, Ending, ended, is_ours, number_event
from polos.journal.memory import Remembered, parts_of_end, sessions_of
from polos.journal.runs import FENCE, RUNS, WAKE_VALUES, NewRun, Q, R, fence, ringing_from_now
from polos.journal.spending import SUMS
from polos.journal.statements import Part, Row, Statement, Unit, lists, now, one_of
from polos.journal.states import LIVE, QueueSlot, RunStatus, StepStatus
from polos.journal.steps import STEPS, S

P = bindparam
ColumnsOf = Callable[[Any, Mapping[str, Any]], dict[str, Any]]

_INHERITED = ("project", "deployment", "root_id", "root_name", "hops")
_GIVEN = (
    "kind",
    "name",
    "caller",
    "session_id",
    "user_id",
    "queue",
    "route",
    "concurrency_key",
    "priority",
    "input",
    "initial_state",
    "run_timeout_seconds",
    "usage_limits",
    "parent_step",
    "awaited",
)
# What is told of each child and of its step, by the name of the parameter.
_TOLD_OF_CHILD: dict[str, Any] = {
    **{name: R[name].type for name in _GIVEN},
    "child": R.id.type,
    "place": Float(),
}
_TOLD_OF_STEP: dict[str, Any] = {
    "child": R.id.type,
    "parent_step": S.name.type,
    "awaited": R.awaited.type,
    "step_kind": S.kind.type,
    "position": S.position.type,
    "step_status": S.status.type,
    "step_output": S.output.type,
}
_ZERO: Any = literal_column("0")  # in the text, which is short enough so for psycopg to keep it


def _child_columns(parent: Any, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a child is made of."""
    is_limited = exists().where(
        Q.project == parent.project,
        Q.deployment == parent.deployment,
        Q.name == told["queue"],
        has_limits(),
    )
    return {
        "id": told["child"],
        "parent_id": parent.id,
        "depth": parent.depth + 1,
        "status": literal(RunStatus.QUEUED.value),
        "created_at": now() + told["place"] * literal(PLACE_SECONDS, Float),
        "ring_at": case((is_limited, None), else_=ringing_from_now()),
        "slot": case((is_limited, literal(QueueSlot.WANTED.value)), else_=None),
        **{name: parent[name] for name in _INHERITED},
        **{name: told[name] for name in _GIVEN},
        **dict.fromkeys(COUNTERS, _ZERO),
    }


def _step_columns(parent: Any, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the parent's step is made of that stands for the child."""
    return {
        "run_id": parent.id,
        "name": told["parent_step"],
        "kind": told["step_kind"],
        "position": told["position"],
        "status": told["step_status"],
        "seq": case((told["awaited"] == 1, None), else_=parent.seq),
        "output": told["step_output"],
        "child_id": told["child"],
        **dict.fromkeys(("attempt", "tries", "crashes", "rings"), _ZERO),
        "started_at": now(),
    }


def _inserted(table: Any, columns: dict[str, Any], made: Any) -> Any:
    return upsert(table).from_select(list(columns), made).on_conflict_do_nothing()


def _one(table: Any, columns_of: ColumnsOf, told: dict[str, Any]) -> Statement:
    """Return the INSERT of one row, under the parent's fence."""
    columns = columns_of(R, {name: P(name, type_=kind) for name, kind in told.items()})
    return Statement(_inserted(table, columns, select(*columns.values()).where(*fence())))


_INSERT_CHILD = _one(RUNS, _child_columns, _TOLD_OF_CHILD)
_INSERT_CHILD_STEP = _one(STEPS, _step_columns, _TOLD_OF_STEP)
_held = (
    update(RUNS)
    .where(*fence())
    .values(seq=R.seq + 1)
    .returning(R.id, R.seq, R.depth, *(R[name] for name in _INHERITED))
    .cte("held")
)


def _many(table: Any, columns_of: ColumnsOf, told: dict[str, Any]) -> Any:
    """Return the INSERT of any number of rows, for the parent that the CTE `held` fenced."""
    rows = lists(told)
    columns = columns_of(_held.c, rows.c)
    made = select(*columns.values()).select_from(_held.join(rows, true()))
    return _inserted(table, columns, made).cte(f"new_{table.name}")


_CREATE_FUSED = Statement(
    select(_held.c.seq).add_cte(
        _many(RUNS, _child_columns, _TOLD_OF_CHILD), _many(STEPS, _step_columns, _TOLD_OF_STEP)
    )
)


def create_children(
    parent_id: str, attempt: int, children: Sequence[NewRun], *, positions: Sequence[int], ring_again: float
) -> Unit:
    """Create children of a run, each with the parent's step that stands for it; answers (seq,) or nothing.

    Ids are derived from parent and step, so that creating them again changes nothing. A child that is not
    awaited gives its step an outcome at once: the id of the run it started.
    """
    params: dict[str, Any] = {"run": parent_id, "attempt": attempt, "ring_again": ring_again}
    told = [
        {**child.columns(), **_step_values(child, position), "place": float(place)}
        for place, (child, position) in enumerate(zip(children, positions, strict=True))
    ]
    parts = [Part(FENCE, params)]
    for values in told:
        each = {**params, **values}
        parts += [Part(statement, each, guard=False) for statement in (_INSERT_CHILD, _INSERT_CHILD_STEP)]
    names = _TOLD_OF_CHILD | _TOLD_OF_STEP
    together = {**params, **{name: [values[name] for values in told] for name in names}}
    return Unit(tuple(parts), (parent_id,), fused=(Part(_CREATE_FUSED, together),), order=(parent_id,))


def _step_values(child: NewRun, position: int) -> dict[str, Any]:
    status = StepStatus.RUNNING if child.awaited else StepStatus.COMPLETED
    return {
        "child": child.id,
        "position": position,
        "step_kind": "child" if child.awaited else "invoke",
        "step_status": status.value,
        "step_output": None if child.awaited else f'"{child.id}"',
    }


_child = RUNS.alias("child")
_WAKE_PARENT = Statement(
    update(RUNS).where(R.id == P("parent"), one_of(R.status, LIVE), is_ours).values(**WAKE_VALUES)
)
_child_ended_so = exists().where(
    _child.c.id == P("run"),
    _child.c.attempt == P("attempt"),
    _child.c.status == P("ending", type_=R.status.type),
)
_STEP_OF_PARENT = {
    "status": P("step_status"),
    "output": P("output"),
    "output_schema": P("output_schema"),
    "error": P("error"),
    "seq": select(R.seq).where(R.id == P("parent")).scalar_subquery(),
    "finished_at": now(),
}
_step_waits = (
    S.run_id == P("parent"),
    S.name == P("parent_step"),
    S.child_id == P("run"),
    S.status == StepStatus.RUNNING.value,
)
_COMPLETE_PARENT_STEP = Statement(
    update(STEPS).where(*_step_waits, _child_ended_so).values(**_STEP_OF_PARENT)
)
_parent = RUNS.alias("parent")
_parent_now = (
    select(_parent.c.status).where(_parent.c.id == P("parent", type_=R.id.type)).scalar_subquery(),
    select(_parent.c.owner).where(_parent.c.id == P("parent", type_=R.id.type)).scalar_subquery(),
)
_FINISH_CHILD = Statement(
    update(RUNS)
    .where(*fence())
    .values(**ENDING_VALUES, **SUMS, **ended())
    .returning(R.id, *_parent_now, R.ended_event)
)


def finish_child(
    run_id: str,
    attempt: int,
    ending: Ending,
    *,
    root_id: str,
    parent_id: str,
    parent_step: str,
    ring_again: float,
    remembered: Remembered | None = None,
) -> Unit:
    """End a run its parent waits for, and complete the parent's step; `remembered` becomes true with it.

    Answers (id, parent status, parent owner, number of the event in the tree), nothing when the child is
    fenced. The parent gets the outcome whatever its own attempt has become.
    """
    params = {
        "run": run_id,
        "attempt": attempt,
        "root": root_id,
        "parent": parent_id,
        "parent_step": parent_step,
        "ring_again": ring_again,
        "ending": ending.status.value,
        "step_status": _step_status(ending).value,
        **ending.columns(),
    }
    return Unit(
        (
            Part(NUMBER_END, params, guard=False),
            Part(_WAKE_PARENT, params, guard=False),
            Part(_FINISH_CHILD, params),
            Part(_COMPLETE_PARENT_STEP, params, guard=False),
            *parts_of_end(remembered, params),
        ),
        tuple({root_id: None, parent_id: None, run_id: None}),
        order=(root_id, parent_id, run_id),
        answer=2,
        check=Part(FINISHED, params),
        sessions=sessions_of(remembered),
    )


def _step_status(ending: Ending) -> StepStatus:
    return StepStatus.COMPLETED if ending.status is RunStatus.COMPLETED else StepStatus.FAILED


_child_lives = exists().where(_child.c.id == P("run"), one_of(_child.c.status, LIVE))
_WAKE_PARENT_OF_CANCELLED = Statement(
    update(RUNS).where(R.id == P("parent"), one_of(R.status, LIVE), _child_lives).values(**WAKE_VALUES)
)
_NUMBER_CANCELLED = number_event(_child_lives)
_CANCEL = Statement(
    update(RUNS)
    .where(R.id == P("run"), one_of(R.status, LIVE))
    .values(
        status=RunStatus.CANCELLED.value,
        attempt=R.attempt + 1,
        cancelled_by=P("cancelled_by"),
        error=P("error"),
        **ended(),
    )
    .returning(R.id, *_parent_now, R.ended_event)
)
_cancelled = exists().where(_child.c.id == P("run"), _child.c.status == RunStatus.CANCELLED.value)
_FAIL_PARENT_STEP = Statement(
    update(STEPS)
    .where(*_step_waits, _cancelled)
    .values(
        status=StepStatus.FAILED.value,
        error=P("error"),
        seq=select(R.seq).where(R.id == P("parent")).scalar_subquery(),
        finished_at=now(),
    )
)
TREE_COLUMNS = (
    "id",
    "parent_id",
    "parent_step",
    "kind",
    "name",
    "status",
    "attempt",
    "owner",
    "error",
    "total_tokens",
    "cost",
    "created_at",
    "started_at",
    "finished_at",
)
READ_TREE = Statement(
    select(*(R[name] for name in TREE_COLUMNS)).where(R.root_id == P("root")).order_by(R.created_at, R.id)
)


def tree_record(row: Row) -> dict[str, Any]:
    """Return a row of READ_TREE by column name."""
    return dict(zip(TREE_COLUMNS, row, strict=True))


def cancel_run(
    run_id: str,
    *,
    root_id: str,
    parent_id: str | None,
    parent_step: str | None,
    cancelled_by: str,
    error: str,
    ring_again: float,
) -> Unit:
    """Cancel one run of any live state.

    Answers (id, parent status, parent owner, number of the event in the tree), nothing if it has ended.

    Its attempt grows, so that whoever executes it is fenced at once. Children are cancelled by the caller,
    level by level: none can be created after this commit. `error` is JSON text.
    """
    params = {
        "run": run_id,
        "root": root_id,
        "parent": parent_id,
        "parent_step": parent_step,
        "cancelled_by": cancelled_by,
        "error": error,
        "ring_again": ring_again,
    }
    number = (Part(_NUMBER_CANCELLED, params, guard=False),) if root_id != run_id else ()
    wake = (Part(_WAKE_PARENT_OF_CANCELLED, params, guard=False),) if parent_id else ()
    step = (Part(_FAIL_PARENT_STEP, params, guard=False),) if parent_id else ()
    locks = tuple(dict.fromkeys(run for run in (root_id, parent_id, run_id) if run))
    return Unit(
        (*number, *wake, Part(_CANCEL, params), *closing_parts(params), *step),
        locks,
        order=locks,
        answer=len(number) + len(wake),
    )
