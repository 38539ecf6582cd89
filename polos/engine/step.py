"""`ctx.step`: the durable verbs of user code. Each is asked for once; a replay returns what is recorded."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from polos.engine.calling import RetryPolicy, call_in_step
from polos.engine.child_requests import (
    agent_request,
    batch_item,
    batch_requests,
    batch_result,
    request_for,
)
from polos.engine.children import ChildRequest, await_batch, await_children, start_batch, start_child
from polos.engine.event_waiting import EventQuestion, await_event
from polos.engine.execution import Execution
from polos.engine.inline import run_inline, value_of
from polos.engine.patches import is_patched
from polos.engine.publishing import publish_once
from polos.engine.runtime import Runtime
from polos.engine.suspending import answer_once, wait_for_answer
from polos.engine.timers import wait_until_due
from polos.engine.wait_arguments import (
    checked_event_type,
    checked_since,
    checked_timeout,
    problem_of_wait,
    seconds_of,
    seconds_since_epoch,
)
from polos.errors import StepExecutionError
from polos.events import EventPayload, check_topic
from polos.handles import ExecutionHandle
from polos.journal.batches import READ_CREATED
from polos.records import api_time
from polos.step_names import user_key
from polos.types import BatchStepResult, BatchWorkflowInput
from polos.workflows import Workflow

if TYPE_CHECKING:
    from pydantic import BaseModel


class StepRunner:
    """The durable operations of one run. Every key names one operation of the run, whatever its kind."""

    def __init__(self, runtime: Runtime, execution: Execution) -> None:
        self._runtime = runtime
        self._execution = execution

    @property
    def engine(self) -> tuple[Runtime, Execution]:
        """What the bodies of our own definitions, such as the agent loop, build their steps from."""
        return self._runtime, self._execution

    async def run(
        self,
        step_key: str,
        func: Callable[..., Any],
        *args: Any,
        max_retries: int = 2,
        base_delay: float = 1.0,
        max_delay: float = 10.0,
        at_most_once: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Call ``func(*args, **kwargs)`` and record what it returns; a replay returns the record.

        The function runs at least once: a crash between its end and the record runs it again. Sync functions
        run in a thread. An `Exception` is retried up to `max_retries` times, after `base_delay` seconds,
        doubling up to `max_delay`, with 20 % jitter; a long pause holds no worker. With `at_most_once` it is
        never called twice: a step that was interrupted fails, and says that it may have happened.

        Raises:
            StepExecutionError: All attempts failed, now or on record.
        """
        if not callable(func):
            raise StepExecutionError(f"Step {step_key!r}: {func!r} is not callable")
        retries = RetryPolicy(0 if at_most_once else max_retries, base_delay, max_delay)
        return await run_inline(
            self._runtime,
            self._execution,
            _checked(step_key),
            "run",
            lambda: call_in_step(func, args, kwargs),
            retries=retries,
            at_most_once=at_most_once,
        )

    def idempotency_key(self, step_key: str) -> str:
        """Return a key for the effects of a step, the same in every attempt, for services that take one."""
        return f"{self._execution.run_id}:{step_key}"

    async def uuid(self, step_key: str) -> str:
        """Return a random UUID4, the same on every replay."""
        value: str = await self._value(step_key, "uuid", lambda: str(uuid.uuid4()))
        return value

    async def now(self, step_key: str) -> int:
        """Return the time in milliseconds since the epoch, the same on every replay."""
        value: int = await self._value(step_key, "now", lambda: int(self._runtime.clock.time() * 1000))
        return value

    async def random(self, step_key: str) -> float:
        """Return a random number in [0, 1), the same on every replay."""
        value: float = await self._value(step_key, "random", random.random)
        return value

    async def wait_for(
        self,
        step_key: str,
        seconds: float | None = None,
        minutes: float | None = None,
        hours: float | None = None,
        days: float | None = None,
        weeks: float | None = None,
    ) -> None:
        """Wait for the sum of the given times, however long: a run that waits holds no worker.

        Raises:
            StepExecutionError: The sum is not positive, or ends after the year 9999.
            TypeError: One of them is no number.
        """
        given = {"seconds": seconds, "minutes": minutes, "hours": hours, "days": days, "weeks": weeks}
        total = seconds_of(given)
        await wait_until_due(
            self._runtime,
            self._execution,
            _checked(step_key),
            seconds=total,
            problem=problem_of_wait(total),
        )

    async def wait_until(self, step_key: str, timestamp: datetime) -> None:
        """Wait until a moment; one without time zone is UTC. A replay after the moment goes on at once.

        Raises:
            StepExecutionError: The moment was past when the step was first asked for.
            TypeError: It is no datetime.
        """
        await wait_until_due(
            self._runtime,
            self._execution,
            _checked(step_key),
            at=seconds_since_epoch(timestamp),
            past=f"wait_until: {timestamp.isoformat()} is in the past",
        )

    async def wait_for_event(
        self,
        step_key: str,
        topic: str,
        timeout: float | None = None,
        event_type: str | None = None,
        since: int | datetime | None = None,
    ) -> EventPayload:
        """Wait for the next event of a topic and return it; every run that waits for it gets it.

        Args:
            step_key: Of this wait.
            topic: Of your own, or of a run tree, ``workflow/{root workflow}/{root run}``.
            timeout: In seconds, None for no limit.
            event_type: Wait for an event of this type; None for any.
            since: Take the earliest event after this sequence id or moment, even if it is there already.

        Raises:
            StepExecutionError: No event came in time.
            ValueError, TypeError: There can be no such topic, or an argument is of no use.
        """
        question = EventQuestion(
            check_topic(topic),
            checked_event_type(event_type),
            checked_since(since),
            checked_timeout(timeout),
        )
        return await await_event(self._runtime, self._execution, _checked(step_key), question)

    async def resume(
        self,
        step_key: str,
        suspend_step_key: str,
        suspend_execution_id: str,
        suspend_workflow_id: str,
        data: dict[str, Any] | BaseModel,
    ) -> None:
        """Answer the suspend of another run, exactly once; nothing happens when the answer comes too late.

        Args:
            step_key: Of this step.
            suspend_step_key: What the other waits under.
            suspend_execution_id: The root run of the one that waits.
            suspend_workflow_id: Of that root run.
            data: The answer.

        Raises:
            StepExecutionError: There is no such run.
            ValueTooLargeError, TypeError: `data` cannot be stored.
        """
        await answer_once(
            self._runtime,
            self._execution,
            _checked(step_key),
            root_id=suspend_execution_id,
            step_key=suspend_step_key,
            data=data,
        )

    async def suspend(
        self, step_key: str, data: dict[str, Any] | BaseModel, timeout: float | None = None
    ) -> dict[str, Any]:
        """Wait until somebody answers with `client.resume`; return the answer, with its ``"data"``.

        Readers of the run get the event ``suspend_{step_key}`` with `data`. A run that waits holds no worker,
        however long; `timeout` is in seconds, None for no limit.

        Raises:
            StepExecutionError: Nobody answered in time.
            ValueTooLargeError, TypeError: `data` cannot be stored.
        """
        seconds = checked_timeout(timeout)
        name = _checked(step_key)
        return await wait_for_answer(self._runtime, self._execution, name, data=data, timeout_seconds=seconds)

    async def publish_event(
        self, step_key: str, topic: str, data: dict[str, Any], event_type: str | None = None
    ) -> None:
        """Publish an event to a topic, exactly once: it and the record of this step are one transaction.

        Raises:
            ValueError, TypeError: There can be no such topic, or the data cannot be stored.
        """
        await self._publish(step_key, check_topic(topic), data, event_type)

    async def publish_workflow_event(
        self, step_key: str, data: dict[str, Any], event_type: str | None = None
    ) -> None:
        """Publish an event, such as progress, to whoever follows this run or a run above it, exactly once."""
        await self._publish(step_key, None, data, event_type)

    async def _publish(
        self, step_key: str, topic: str | None, data: dict[str, Any], event_type: str | None
    ) -> None:
        name = _checked(step_key)
        await publish_once(
            self._runtime, self._execution, name, topic=topic, data=data, event_type=event_type
        )

    async def invoke(
        self,
        step_key: str,
        workflow: str | Workflow,
        payload: Any = None,
        initial_state: BaseModel | dict[str, Any] | None = None,
        queue: str | None = None,
        concurrency_key: str | None = None,
        run_timeout_seconds: int | None = None,
        *,
        priority: int | None = None,
    ) -> ExecutionHandle:
        """Start a child run and go on without it; the same key always means the same child.

        Raises:
            StepExecutionError: The workflow is not known in this process.
            ValueError: The payload does not fit.
        """
        request = request_for(
            workflow, payload, initial_state, queue, concurrency_key, run_timeout_seconds, priority=priority
        )
        return await self._start(step_key, request)

    async def invoke_and_wait(
        self,
        step_key: str,
        workflow: str | Workflow,
        payload: Any = None,
        initial_state: BaseModel | dict[str, Any] | None = None,
        queue: str | None = None,
        concurrency_key: str | None = None,
        run_timeout_seconds: int | None = None,
        *,
        priority: int | None = None,
    ) -> Any:
        """Start a child run, wait for it without holding a slot, and return its result.

        Raises:
            StepExecutionError: The child failed or was cancelled, or its workflow is not known here.
            ValueError: The payload does not fit.
        """
        request = request_for(
            workflow, payload, initial_state, queue, concurrency_key, run_timeout_seconds, priority=priority
        )
        return await self._wait(step_key, request)

    async def agent_invoke(self, step_key: str, config: Any) -> ExecutionHandle:
        """Start an agent run, given by ``agent.with_input(...)``, and go on without it."""
        return await self._start(step_key, agent_request(step_key, config))

    async def agent_invoke_and_wait(self, step_key: str, config: Any) -> Any:
        """Run an agent, given by ``agent.with_input(...)``, and return its `AgentResult`.

        Raises:
            StepExecutionError: The agent run failed or was cancelled.
        """
        return await self._wait(step_key, agent_request(step_key, config))

    async def batch_invoke(self, step_key: str, workflows: list[BatchWorkflowInput]) -> list[ExecutionHandle]:
        """Start child runs, all in one transaction, and go on without them; return their handles in order.

        Raises:
            StepExecutionError: A workflow is not known in this process; nothing was started.
            ValueError: A payload does not fit; nothing was started.
        """
        return await self._start_batch(step_key, batch_requests(step_key, workflows, batch_item))

    async def batch_invoke_and_wait(
        self, step_key: str, workflows: list[BatchWorkflowInput]
    ) -> list[BatchStepResult]:
        """Start child runs, all in one transaction, and return how each ended, in order.

        A child that failed or was cancelled is a result with `success` False; nothing is raised for it.

        Raises:
            StepExecutionError: A workflow is not known in this process; nothing was started.
            ValueError: A payload does not fit; nothing was started.
        """
        return await self._wait_batch(step_key, batch_requests(step_key, workflows, batch_item))

    async def batch_agent_invoke(self, step_key: str, configs: list[Any]) -> list[ExecutionHandle]:
        """Start runs of agents, each given by ``agent.with_input(...)``, as `batch_invoke` does."""
        return await self._start_batch(step_key, batch_requests(step_key, configs, agent_request))

    async def batch_agent_invoke_and_wait(self, step_key: str, configs: list[Any]) -> list[BatchStepResult]:
        """Run agents, each given by ``agent.with_input(...)``; each item's result is an `AgentResult`."""
        return await self._wait_batch(step_key, batch_requests(step_key, configs, agent_request))

    async def patched(self, name: str) -> bool:
        """Return whether this run follows the code of patch `name`: so for its whole life, however replayed.

        True where a run gets here for the first time, which is recorded; False for a run that went on from
        here before the patch was deployed.
        """
        return await is_patched(self._runtime, self._execution, name)

    @contextmanager
    def trace(self, name: str, attributes: dict[str, Any] | None = None) -> Iterator[Any]:
        """Open an OpenTelemetry span around the block and return it; without an SDK it does nothing.

        Not durable: each replay opens it again.
        """
        from opentelemetry import trace  # noqa: PLC0415 - most programs trace nothing

        self._execution.check_open()
        with trace.get_tracer("polos").start_as_current_span(name, attributes=attributes) as span:
            yield span

    async def _value(self, step_key: str, kind: str, make: Callable[[], Any]) -> Any:
        async def made() -> Any:
            return make()

        return await run_inline(self._runtime, self._execution, _checked(step_key), kind, made)

    async def _start(self, step_key: str, request: ChildRequest) -> ExecutionHandle:
        child_id = await start_child(self._runtime, self._execution, _checked(step_key), request)
        return (await self._handles(step_key, {child_id: request}))[0]

    async def _start_batch(self, step_key: str, requests: list[ChildRequest]) -> list[ExecutionHandle]:
        if not requests:
            return []
        ids = await start_batch(self._runtime, self._execution, _checked(step_key), requests)
        return await self._handles(step_key, dict(zip(ids, requests, strict=True)))

    async def _wait_batch(self, step_key: str, requests: list[ChildRequest]) -> list[BatchStepResult]:
        if not requests:
            return []
        rows = await await_batch(self._runtime, self._execution, _checked(step_key), requests)
        return [batch_result(request, row) for request, row in zip(requests, rows, strict=True)]

    async def _handles(self, step_key: str, children: dict[str, ChildRequest]) -> list[ExecutionHandle]:
        rows = await self._execution.read(READ_CREATED, runs=json.dumps(list(children)))
        created = {row[0]: row[1] for row in rows}
        return [
            self._handle(step_key, child_id, request, created[child_id])
            for child_id, request in children.items()
        ]

    def _handle(
        self, step_key: str, child_id: str, request: ChildRequest, created_at: float
    ) -> ExecutionHandle:
        claim = self._execution.claim
        return ExecutionHandle(
            id=child_id,
            workflow_id=request.name,
            created_at=api_time(created_at),
            parent_execution_id=claim.id,
            root_workflow_id=claim.root_name,
            root_execution_id=claim.root_id,
            session_id=request.session_id or claim.session_id,
            user_id=request.user_id or claim.user_id,
            step_key=step_key,
        )

    async def _wait(self, step_key: str, request: ChildRequest) -> Any:
        name = _checked(step_key)
        [row] = await await_children(self._runtime, self._execution, [(name, request)])
        return request.rebuilt(value_of(row), row.output_schema)


def _checked(step_key: str) -> str:
    if not isinstance(step_key, str) or not step_key:
        raise StepExecutionError(f"A step key must be a non-empty string, not {step_key!r}")
    return user_key(step_key)
