"""Forks: a new run that goes on from a copy of another one's journal, up to a step, with other values."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polos import serialization
from polos.errors import InputError
from polos.journal.forks import Replacement
from polos.step_names import shown, user_key
from polos.transport import ForkRequest

Row = Mapping[str, Any]
CLOCK_SECONDS = 0.005  # databases round times; an outcome too many is harmless, one too few is made again
KEPT = (  # columns that a fork has from its source
    "project",
    "kind",
    "name",
    "caller",
    "route",
    "queue",
    "concurrency_key",
    "priority",
    "initial_state",
    "run_timeout_seconds",
)


@dataclass(frozen=True)
class ForkPlan:
    """What a fork takes over: steps by their names in the journal, and values instead of recorded ones."""

    names: tuple[str, ...]
    replacements: Mapping[str, Replacement]
    seq: int


def plan_fork(
    run_id: str,
    steps: Sequence[Row],
    *,
    from_step: str | None = None,
    patch: Mapping[str, Any] | None = None,
    max_value_bytes: int,
) -> ForkPlan:
    """Return what a fork of a run takes over: the outcomes there were when `from_step` was first asked for.

    Args:
        run_id: For messages.
        steps: All rows of the run's journal, by column name.
        from_step: The first step that is executed again; None takes over all outcomes there are.
        patch: Values for steps that are taken over, by their keys.
        max_value_bytes: The largest value.

    Raises:
        ValueError: There is no such step, nothing is recorded, or a patched step is not taken over.
        TypeError: A value cannot be JSON.
    """
    recorded = [step for step in steps if step["seq"] is not None]
    if not recorded and from_step is None:
        raise InputError(f"Run {run_id} has no recorded steps to go on from; start a new run instead")
    taken = recorded if from_step is None else _before(_step(run_id, steps, from_step), recorded)
    replacements = {}
    for key, value in (patch or {}).items():
        step = _step(run_id, steps, key)
        if step not in taken:
            when = f"when step {from_step!r} was begun" if from_step is not None else "yet"
            raise InputError(
                f"Step {key!r} had no outcome {when}: it is not taken over but executed again, and cannot be "
                "patched"
            )
        replacements[step["name"]] = _replacement(step, key, value, max_value_bytes)
    return ForkPlan(
        names=tuple(step["name"] for step in taken),
        replacements=replacements,
        seq=max((step["seq"] for step in taken), default=0),
    )


def forked_row(source: Row, request: ForkRequest, *, deployment: str, max_value_bytes: int) -> dict[str, Any]:
    """Return the columns of a fork, a new root: those of its source, but for what was asked for.

    Raises:
        ValueError, TypeError: The input cannot be stored.
    """
    run_id = str(uuid.uuid4())
    given = None
    if request.input is not None:
        what = f"input of {source['name']!r}"
        given = serialization.dumps(request.input, limit_bytes=max_value_bytes, what=what)
    return {
        **{name: source[name] for name in KEPT},
        "id": run_id,
        "root_id": run_id,
        "root_name": source["name"],
        "forked_from": source["id"],
        "input": source["input"] if given is None else given,
        "deployment": deployment,
        "session_id": request.session_id or source["session_id"],
        "user_id": request.user_id or source["user_id"],
        "idempotency_key": request.idempotency_key,
    }


def _before(first: Row, recorded: Sequence[Row]) -> list[Row]:
    """Return the outcomes that code had when it first asked for a step.

    What was begun later, or beside it and had no outcome yet, is not among them. Each of these depends only
    on others of these: what a step depends on had its outcome before the step was begun.
    """
    return [
        step
        for step in recorded
        if step["position"] < first["position"]
        and (first["seq"] is None or step["seq"] < first["seq"])
        and _ended_at(step) <= (first["started_at"] or _ended_at(step)) + CLOCK_SECONDS
    ]


def _ended_at(step: Row) -> float:
    return float(step["finished_at"] or step["started_at"] or 0.0)


def _step(run_id: str, steps: Sequence[Row], key: str) -> Row:
    """Return a step by its key, or by its name as people see it where that is a step of the engine's own."""
    if not isinstance(key, str):
        raise TypeError(f"A step key is a str, not {key!r}")
    named = {step["name"]: step for step in steps}
    for step in (named.get(user_key(key)), *(step for step in steps if shown(step["name"]) == key)):
        if step is not None:
            return step
    known = ", ".join(repr(shown(step["name"])) for step in sorted(steps, key=lambda one: one["position"]))
    raise InputError(f"Run {run_id} has no step {key!r}; its journal has: {known or 'nothing'}")


def _replacement(step: Row, key: str, value: Any, max_value_bytes: int) -> Replacement:
    given: Any = serialization.to_data(value)
    if step["kind"] == "suspend":  # the answer, in the event that gave it
        given = {**json.loads(step["output"] or "{}"), "data": given}
    text = serialization.dumps(given, limit_bytes=max_value_bytes, what=f"patch of step {key!r}")
    return Replacement(text, serialization.schema_name(value) or step["output_schema"])
