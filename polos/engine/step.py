"""`ctx.step`: the durable verbs of user code. Each is asked for once; a replay returns what is recorded."""

from __future__ import annotations

import asyncio
import inspect
import random
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from polos.engine.children import ChildRequest, await_children, start_children
from polos.engine.execution import Execution
from polos.engine.inline import run_inline, value_of
from polos.engine.publishing import publish_once
from polos.engine.runtime import Runtime
from polos.engine.suspending import wait_for_answer
from polos.errors import StepExecutionError
from polos.events import check_topic
from polos.handles import ExecutionHandle
from polos.inputs import check_labels
from polos.journal.runs import READ_RUN, run_record
from polos.records import api_time
from polos.step_names import user_key
from polos.workflows import Workflow, get_workflow

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
        **kwargs: Any,
    ) -> Any:
        """Call ``func(*args, **kwargs)`` and record what it returns; a replay returns the record.

        The function runs at least once: a crash between its end and the record runs it again. Sync functions
        run in a thread. An `Exception` is retried up to `max_retries` times, after `base_delay` seconds,
        doubling up to `max_delay`, with 20 % jitter.

        Raises:
            StepExecutionError: All attempts failed, now or on record.
        """
        if not callable(func):
            raise StepExecutionError(f"Step {step_key!r}: {func!r} is not callable")
        retries = _Retries(max_retries, base_delay, max_delay)
        return await run_inline(
            self._runtime,
            self._execution,
            _checked(step_key),
            "run",
            lambda: _called(func, args, kwargs),
            retries=retries,
        )

    async def uuid(self, step_key: str) -> str:
        """Return a random UUID4, the same on every replay."""
        value: str = await self._value(step_key, "uuid", lambda: str(uuid.uuid4()))
        return value

    async def now(self, step_key: str) -> int:
        """Return the time in milliseconds since the epoch, the same on every replay."""
        value: int = await self._value(step_key, "now", lambda: int(time.time() * 1000))
        return value

    async def random(self, step_key: str) -> float:
        """Return a random number in [0, 1), the same on every replay."""
        value: float = await self._value(step_key, "random", random.random)
        return value

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
        name = _checked(step_key)
        return await wait_for_answer(self._runtime, self._execution, name, data=data, timeout_seconds=timeout)

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
    ) -> ExecutionHandle:
        """Start a child run and go on without it; the same key always means the same child.

        Raises:
            StepExecutionError: The workflow is not known in this process.
            ValueError: The payload does not fit.
        """
        request = _request(workflow, payload, initial_state, queue, concurrency_key, run_timeout_seconds)
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
    ) -> Any:
        """Start a child run, wait for it without holding a slot, and return its result.

        Raises:
            StepExecutionError: The child failed or was cancelled, or its workflow is not known here.
            ValueError: The payload does not fit.
        """
        request = _request(workflow, payload, initial_state, queue, concurrency_key, run_timeout_seconds)
        return await self._wait(step_key, request)

    async def agent_invoke(self, step_key: str, config: Any) -> ExecutionHandle:
        """Start an agent run, given by ``agent.with_input(...)``, and go on without it."""
        return await self._start(step_key, _agent_request(step_key, config))

    async def agent_invoke_and_wait(self, step_key: str, config: Any) -> Any:
        """Run an agent, given by ``agent.with_input(...)``, and return its `AgentResult`.

        Raises:
            StepExecutionError: The agent run failed or was cancelled.
        """
        return await self._wait(step_key, _agent_request(step_key, config))

    async def _value(self, step_key: str, kind: str, make: Callable[[], Any]) -> Any:
        async def made() -> Any:
            return make()

        return await run_inline(self._runtime, self._execution, _checked(step_key), kind, made)

    async def _start(self, step_key: str, request: ChildRequest) -> ExecutionHandle:
        claim = self._execution.claim
        child_id = await start_children(self._runtime, self._execution, _checked(step_key), request)
        [row] = await self._runtime.journal.read(READ_RUN, run=child_id)
        return ExecutionHandle(
            id=child_id,
            workflow_id=request.name,
            created_at=api_time(run_record(row)["created_at"]),
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


class _Retries:
    """How often and after which pauses a step is tried again."""

    def __init__(self, max_retries: int, base_delay: float, max_delay: float) -> None:
        self.max_retries = max(int(max_retries), 0)
        self.base_delay = base_delay
        self.max_delay = max_delay


def _checked(step_key: str) -> str:
    if not isinstance(step_key, str) or not step_key:
        raise StepExecutionError(f"A step key must be a non-empty string, not {step_key!r}")
    return user_key(step_key)


async def _called(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a user's function: on the loop when it is async, else in a thread; await what comes of it."""
    if inspect.iscoroutinefunction(inspect.unwrap(func)) or _awaits(func):
        return await func(*args, **kwargs)
    result = await asyncio.to_thread(func, *args, **kwargs)
    return await result if inspect.isawaitable(result) else result


def _awaits(func: Callable[..., Any]) -> bool:
    inner = getattr(func, "func", func)  # functools.partial
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004


def _request(
    workflow: str | Workflow,
    payload: Any,
    initial_state: Any,
    queue: str | None,
    concurrency_key: str | None,
    run_timeout_seconds: float | None,
) -> ChildRequest:
    check_labels(queue=queue, concurrency_key=concurrency_key)
    definition = get_workflow(workflow) if isinstance(workflow, str) else workflow
    if not isinstance(definition, Workflow):
        raise StepExecutionError(
            f"Workflow {workflow!r} is not defined in this process; import the module that defines it"
        )
    return ChildRequest(
        kind=definition.workflow_type,
        name=definition.id,
        route=definition.route,
        queue=queue or definition.queue_name,
        payload=definition.check_payload(payload),
        initial_state=definition.check_state(initial_state),
        concurrency_key=concurrency_key,
        run_timeout_seconds=run_timeout_seconds,
        rebuilt=definition.rebuild_result,
    )


def _agent_request(step_key: str, config: Any) -> ChildRequest:
    agent = getattr(config, "agent", None)
    if not isinstance(agent, Workflow) or not hasattr(config, "payload"):
        raise StepExecutionError(
            f"Step {step_key!r} needs what agent.with_input(...) returns, not {type(config).__name__}"
        )
    request = _request(agent, config.payload(), config.initial_state, None, None, config.run_timeout_seconds)
    return request.for_session(config.session_id, config.user_id)
