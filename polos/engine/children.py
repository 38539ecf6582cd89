"""Child runs: created once per (parent, step), in one transaction with the step that stands for them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from polos import serialization
from polos.dispatch import Doorbell
from polos.engine.execution import Execution
from polos.engine.runtime import Runtime
from polos.errors import StepExecutionError
from polos.faultpoints import faultpoint
from polos.journal.batches import in_batch
from polos.journal.children import create_children
from polos.journal.runs import NewRun
from polos.journal.states import StepStatus
from polos.journal.steps import StepRow
from polos.step_names import internal, shown

CHILD_IDS = uuid.UUID("6f2f0a7e-6a1d-4b43-9a35-0b7f9d2a6c11")  # namespace of ids derived from parent and step


@dataclass(frozen=True)
class ChildRequest:
    """A child run to create. `payload` and `initial_state` are JSON data."""

    kind: str
    name: str
    route: str | None
    queue: str
    payload: Any
    rebuilt: Callable[[Any, str | None], Any]
    initial_state: Any = None
    concurrency_key: str | None = None
    priority: int | None = None  # None: the parent's
    run_timeout_seconds: float | None = None
    session_id: str | None = None
    user_id: str | None = None
    caller: str | None = None  # whose definition its name is looked up in first; None: the parent's

    def for_session(self, session_id: str | None, user_id: str | None) -> ChildRequest:
        """Return the request for another session or user than the parent's, where they are given."""
        return replace(self, session_id=session_id, user_id=user_id)


def child_id_of(parent_id: str, name: str) -> str:
    """Return the id of the child that step `name` of a run creates: always the same."""
    return str(uuid.uuid5(CHILD_IDS, f"{parent_id}\n{name}"))


async def start_child(runtime: Runtime, execution: Execution, name: str, request: ChildRequest) -> str:
    """Start a child nobody waits for; return its id."""
    await _outcomes(runtime, execution, {name: request}, awaited=False)
    return child_id_of(execution.run_id, name)


async def await_children(
    runtime: Runtime, execution: Execution, requests: Sequence[tuple[str, ChildRequest]]
) -> list[StepRow]:
    """Start children, all in one transaction, and return the outcome of each, in order.

    A failed child is an outcome like any other here.
    """
    return await _outcomes(runtime, execution, dict(requests), awaited=True)


async def start_batch(
    runtime: Runtime, execution: Execution, name: str, requests: Sequence[ChildRequest]
) -> list[str]:
    """Start children of one step nobody waits for, all in one transaction; return their ids in order."""
    wanted = _named(name, requests)
    await _outcomes(runtime, execution, wanted, awaited=False, batch=name)
    return [child_id_of(execution.run_id, child) for child in wanted]


async def await_batch(
    runtime: Runtime, execution: Execution, name: str, requests: Sequence[ChildRequest]
) -> list[StepRow]:
    """Start children of one step, all in one transaction, and return the outcome of each, in order."""
    rows = await _outcomes(runtime, execution, _named(name, requests), awaited=True, batch=name)
    return rows[1:]


def _named(name: str, requests: Sequence[ChildRequest]) -> dict[str, ChildRequest]:
    return {internal(f"{name}[{place}]"): request for place, request in enumerate(requests)}


async def _outcomes(
    runtime: Runtime,
    execution: Execution,
    requests: Mapping[str, ChildRequest],
    *,
    awaited: bool,
    batch: str | None = None,
) -> list[StepRow]:
    """Return the outcomes of children, which are created together where there are none; first the batch's."""
    for name, request in requests.items():
        execution.check_child(name, request.name)

    async def begin(positions: dict[str, int]) -> None:
        place_of_batch = positions.pop(batch, None) if batch is not None else None
        chosen = [(name, requests[name]) for name in positions]
        children = _new_runs(runtime, execution, chosen, awaited=awaited)
        await _create(runtime, execution, children, positions, batch=batch, place_of_batch=place_of_batch)

    kind = "child" if awaited else "invoke"
    kinds = dict.fromkeys(requests, kind)
    return await execution.outcomes(kinds if batch is None else {batch: "batch", **kinds}, begin)


def _new_runs(
    runtime: Runtime, execution: Execution, requests: Sequence[tuple[str, ChildRequest]], *, awaited: bool
) -> list[NewRun]:
    claim = execution.claim
    if claim.depth >= runtime.settings.max_depth:
        raise StepExecutionError(
            f"Run {claim.id} is {claim.depth} levels below its root; POLOS_MAX_DEPTH allows no deeper child"
        )
    return [
        NewRun(
            id=child_id_of(claim.id, name),
            project=claim.project,
            deployment=claim.deployment,
            kind=request.kind,
            name=request.name,
            caller=request.caller or claim.name,
            queue=request.queue,
            route=runtime.routes.of_run(request.name, request.route),
            concurrency_key=request.concurrency_key,
            priority=claim.priority if request.priority is None else request.priority,
            root_id=claim.root_id,
            root_name=claim.root_name,
            session_id=request.session_id or claim.session_id,
            user_id=request.user_id or claim.user_id,
            input=_text(runtime, request.payload, f"payload of step {shown(name)!r}"),
            initial_state=_text(runtime, request.initial_state, f"initial state of step {shown(name)!r}"),
            run_timeout_seconds=request.run_timeout_seconds,
            usage_limits=execution.usage_limits,
            parent_id=claim.id,
            parent_step=name,
            awaited=int(awaited),
            depth=claim.depth + 1,
        )
        for name, request in requests
    ]


def _text(runtime: Runtime, value: Any, what: str) -> str | None:
    if value is None:
        return None
    return serialization.dumps(value, limit_bytes=runtime.settings.max_value_bytes, what=what)


async def _create(
    runtime: Runtime,
    execution: Execution,
    children: list[NewRun],
    positions: Mapping[str, int],
    *,
    batch: str | None,
    place_of_batch: int | None,
) -> None:
    await runtime.may_start()
    first = children[0]
    faultpoint("before_child_start", f"{first.kind} {first.name}")
    claim = execution.claim
    unit = create_children(
        claim.id,
        claim.attempt,
        children,
        positions=list(positions.values()),
        ring_again=runtime.settings.ring_again_seconds,
    )
    if batch is not None and place_of_batch is not None:
        unit = in_batch(unit, batch, position=place_of_batch)
    seq = await execution.commit(unit)
    faultpoint("after_child_start", f"{first.kind} {first.name}")
    if batch is not None and place_of_batch is not None:
        status = StepStatus.COMPLETED.value
        execution.record(StepRow(batch, "batch", place_of_batch, seq, status, 0, None, None, None, None))
    for child in children:
        _take_note(execution, child, positions[child.parent_step or ""], seq)
    execution.scheduled(seq)
    faultpoint("before_ring", f"{first.kind} {first.name}")
    for child in children:
        if runtime.doorman.is_limited(child.queue):
            runtime.doorman.look_at(child.queue, child.concurrency_key)
        else:
            bell = Doorbell(child.id, child.name, child.route, child.deployment, begun=True)
            runtime.dispatcher.ring(bell)


def _take_note(execution: Execution, child: NewRun, position: int, seq: int) -> None:
    name = child.parent_step or ""
    if child.awaited:
        status = StepStatus.RUNNING.value
        execution.under_way(StepRow(name, "child", position, None, status, 0, None, None, None, child.id))
    else:
        status, output = StepStatus.COMPLETED.value, serialization.dumps(child.id)
        execution.record(StepRow(name, "invoke", position, seq, status, 0, output, None, None, child.id))
