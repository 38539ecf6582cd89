"""Child runs: created once per (parent, step), in one transaction with the step that stands for them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from polos import serialization
from polos.dispatch import Doorbell
from polos.engine.execution import Execution
from polos.engine.runtime import Runtime
from polos.errors import StepExecutionError
from polos.faultpoints import faultpoint
from polos.journal.children import create_children
from polos.journal.runs import NewRun
from polos.journal.states import StepStatus
from polos.journal.steps import StepRow
from polos.step_names import shown

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

    def for_session(self, session_id: str | None, user_id: str | None) -> ChildRequest:
        """Return the request for another session or user than the parent's, where they are given."""
        return replace(self, session_id=session_id, user_id=user_id)


def child_id_of(parent_id: str, name: str) -> str:
    """Return the id of the child that step `name` of a run creates: always the same."""
    return str(uuid.uuid5(CHILD_IDS, f"{parent_id}\n{name}"))


async def start_children(runtime: Runtime, execution: Execution, name: str, request: ChildRequest) -> str:
    """Start a child nobody waits for; return its id."""

    async def begin(position: int) -> None:
        [child] = _new_runs(runtime, execution, [(name, request)], awaited=False)
        seq = await _create(runtime, execution, [child], [position])
        output = serialization.dumps(child.id)
        execution.record(
            StepRow(
                name, "invoke", position, seq, StepStatus.COMPLETED.value, 0, output, None, None, child.id
            )
        )

    await execution.outcome(name, "invoke", begin)
    return child_id_of(execution.run_id, name)


async def await_children(
    runtime: Runtime, execution: Execution, requests: Sequence[tuple[str, ChildRequest]]
) -> list[StepRow]:
    """Start children, all in one transaction, and return the outcome of each, in order.

    A failed child is an outcome like any other here.
    """
    gathered = _Together(runtime, execution, requests)
    return list(await asyncio.gather(*(gathered.outcome(name) for name, _ in requests)))


class _Together:
    """Children that are asked for at once and created in one transaction, as far as they do not exist yet."""

    def __init__(
        self, runtime: Runtime, execution: Execution, requests: Sequence[tuple[str, ChildRequest]]
    ) -> None:
        self._runtime = runtime
        self._execution = execution
        self._requests = dict(requests)
        self._missing = {name for name in self._requests if not execution.is_recorded(name)}
        self._begun: dict[str, int] = {}

    async def outcome(self, name: str) -> StepRow:
        return await self._execution.outcome(name, "child", lambda position: self._begin(name, position))

    async def _begin(self, name: str, position: int) -> None:
        self._begun[name] = position
        if set(self._begun) != self._missing:
            return  # the last one creates them all
        wanted = [(name, self._requests[name]) for name in self._begun]
        children = _new_runs(self._runtime, self._execution, wanted, awaited=True)
        await _create(self._runtime, self._execution, children, list(self._begun.values()))


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
            caller=claim.name,
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
    runtime: Runtime, execution: Execution, children: list[NewRun], positions: list[int]
) -> int:
    await runtime.may_start()
    faultpoint("before_child_start", f"{children[0].kind} {children[0].name}")
    claim = execution.claim
    seq = await execution.commit(
        create_children(
            claim.id,
            claim.attempt,
            children,
            positions=positions,
            ring_again=runtime.settings.ring_again_seconds,
        )
    )
    faultpoint("after_child_start", f"{children[0].kind} {children[0].name}")
    for child, position in zip(children, positions, strict=True):
        if child.awaited:
            execution.under_way(_row_of(child, position))
    execution.scheduled(seq)
    faultpoint("before_ring", f"{children[0].kind} {children[0].name}")
    bells = (Doorbell(child.id, child.name, child.route, child.deployment, begun=True) for child in children)
    runtime.dispatcher.ring(*bells)
    return seq


def _row_of(child: NewRun, position: int) -> StepRow:
    name = child.parent_step or ""
    return StepRow(name, "child", position, None, StepStatus.RUNNING.value, 0, None, None, None, child.id)
