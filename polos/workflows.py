"""Workflows: functions that run durably, the decorator that makes them, and the registry of what is defined.

Agents and tools are workflows too. How a run goes is the engine's business; here is what a definition says.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar, overload

from pydantic import BaseModel

from polos.callers import call_sync, client_and_payload, given
from polos.cron import CronSchedule, cron_schedule
from polos.current import refuse_inside_run
from polos.errors import RunFailedError, WorkflowTimeoutError
from polos.events import TREE_TOPICS, check_topic
from polos.functions import (
    UserFunction,
    call_function,
    check_signature,
    is_async,
    is_model,
    positional_parameters,
    resolved,
    signature_of,
)
from polos.handles import ExecutionHandle
from polos.hooks import hook_list
from polos.inputs import PayloadParameter, WorkflowState, build_state, check_state, checked_state_schema
from polos.queues import Queue, check_route, queue_of, queue_settings
from polos.registry import checked_id, defined_at, get_all_workflows, get_workflow, id_or_name, register
from polos.serialization import class_name, find_model, rebuild, to_data

WorkflowType = Literal["workflow", "agent", "tool"]
Schedule = bool | str | dict[str, Any] | None
T = TypeVar("T")

__all__ = ["Workflow", "WorkflowState", "get_all_workflows", "get_workflow", "register", "workflow"]


logger = logging.getLogger(__name__)


class Workflow:
    """A function that runs durably, under an id that runs of it carry.

    Built by `@workflow`, which also registers it. Attributes have the names of the arguments; `is_async` and
    `has_payload_param` say how `func` is called, `defined_at` where the definition was written, and `route`
    which Celery queue its runs are sent to (None for ``polos``). `queue` gives name and limit at once, in any
    of the forms `@workflow` takes.

    Raises:
        ValueError: The id is empty, or schedule, trigger and queue contradict each other.
        TypeError: `func` does not take ``(ctx)`` or ``(ctx, payload)``, or a hook is not callable.
    """

    def __init__(
        self,
        id: str,
        func: UserFunction,
        description: str | None = None,
        workflow_type: WorkflowType = "workflow",
        queue_name: str | None = None,
        queue_concurrency_limit: int | None = None,
        trigger_on_event: str | None = None,
        batch_size: int = 1,
        batch_timeout_seconds: int | None = None,
        schedule: Schedule = None,
        on_start: Any = None,
        on_end: Any = None,
        payload_schema_class: type[BaseModel] | None = None,
        output_schema: type[BaseModel] | None = None,
        state_schema: type[BaseModel] | None = None,
        *,
        queue: str | Queue | dict[str, Any] | None = None,
        route: str | None = None,
        from_beginning: bool = False,
    ) -> None:
        self.id = checked_id(id)
        self.declared_queue = (
            queue_of(queue, id) if queue is not None else Queue(queue_name or id, queue_concurrency_limit)
        )
        if queue is not None:
            queue_name, queue_concurrency_limit = (
                self.declared_queue.name,
                self.declared_queue.concurrency_limit,
            )
        self.workflow_type: WorkflowType = workflow_type
        self.description = description
        self.func = func
        self.is_async = is_async(func)
        self._payload = self._payload_parameter(payload_schema_class)
        self._output_schema = output_schema
        self.state_schema = checked_state_schema(state_schema)
        self.queue_name = queue_name or id
        self.queue_concurrency_limit = queue_concurrency_limit
        self.trigger_on_event = trigger_on_event
        self.from_beginning = from_beginning
        _check_trigger(trigger_on_event, batch_size, batch_timeout_seconds)
        self.batch_size = batch_size
        self.batch_timeout_seconds = batch_timeout_seconds
        self.schedule = schedule
        self.cron_schedule: CronSchedule | None = cron_schedule(schedule)
        self._check_schedule(has_queue=queue_name is not None or queue_concurrency_limit is not None)
        self.on_start = hook_list(on_start, "on_start")
        self.on_end = hook_list(on_end, "on_end")
        self.route = route if route is None else check_route(route, f"{workflow_type} {id!r}")
        self.defined_at = defined_at()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r}>"

    def _payload_parameter(self, model: type[BaseModel] | None) -> PayloadParameter | None:
        parameters = positional_parameters(self.func, most=2, what=f"the function of {self.what}")
        if len(parameters) < 2:
            return None
        return PayloadParameter(self.func, parameters[1], what=self.what, model=model)

    def _check_schedule(self, *, has_queue: bool) -> None:
        if self.schedule and self.trigger_on_event:
            raise ValueError(f"{self.what} has a schedule and an event trigger: give one of them")
        if self.is_schedulable and has_queue:
            raise ValueError(
                f"{self.what} has a schedule and a queue: leave queue= out, schedules have their own"
            )

    @property
    def what(self) -> str:
        """Kind and id, as messages name the definition."""
        return f"{self.workflow_type} {self.id!r}"

    @property
    def is_schedulable(self) -> bool:
        """Whether schedules may start it: it was given a cron expression, or ``schedule=True``."""
        return self.schedule is not None and self.schedule is not False

    @property
    def has_payload_param(self) -> bool:
        """Whether the function takes a payload after the context."""
        return self._payload is not None

    @property
    def payload_schema_class(self) -> type[BaseModel] | None:
        """The model class of the payload, if its annotation names one."""
        return self._payload.model if self._payload else None

    @property
    def output_schema(self) -> type[BaseModel] | None:
        """The model class of the result: as declared, else the return annotation of the function."""
        return self._output_schema or self._annotated_output

    @functools.cached_property
    def _annotated_output(self) -> type[BaseModel] | None:
        annotation = resolved(self.func, signature_of(self.func).return_annotation)
        return annotation if is_model(annotation) else None

    def member(self, id: str) -> Workflow | None:
        """Return the definition of this id, if this one stands for many; None otherwise."""
        return None

    # -- what the engine does with it

    def check_payload(self, payload: object) -> Any:
        """Return `payload` as JSON data to start a run with; None when the function takes none.

        Raises:
            ValueError: It is None but required, or a model that does not fit the annotated one.
            TypeError: It cannot be JSON.
        """
        return self._payload.check(payload) if self._payload else None

    def parse_payload(self, data: Any) -> Any:
        """Return JSON `data` as what the function takes: the annotated model, or the data itself.

        Raises:
            ValueError: The data does not fit; the message names the workflow and the problems. Never succeeds
                later.
        """
        return self._payload.parse(data) if self._payload else None

    def payload_for_hooks(self, payload: Any) -> Any:
        """Return what hooks see as the payload."""
        return payload

    def changed_payload(self, payload: Any, changes: dict[str, Any]) -> Any:
        """Return the payload as JSON data, with what a hook changed merged in."""
        data = to_data(payload)
        return {**data, **changes} if isinstance(data, dict) else changes

    def check_state(self, initial_state: BaseModel | dict[str, Any] | None) -> Any:
        """Return `initial_state` as JSON data to start a run with; None, with a warning, without a schema.

        Raises:
            ValueError: It does not fit the schema, or is larger than 1 MiB.
        """
        return check_state(initial_state, self.state_schema, what=self.what)

    def build_state(self, data: Any) -> BaseModel | None:
        """Return a new state from JSON `data`, from defaults when that is None; None without a state schema.

        Raises:
            ValueError: The data does not fit, or there is a field without a default.
        """
        return build_state(data, self.state_schema, what=self.what)

    async def call(self, ctx: Any, payload: Any = None) -> Any:
        """Return what the function returns; `payload` is what `parse_payload` gave.

        Sync functions run in a thread of the loop's default executor, with the caller's context variables.
        """
        if self._payload is None or (payload is None and self._payload.has_default):
            return await call_function(self.func, ctx)
        return await call_function(self.func, ctx, payload)

    def rebuild_result(self, data: Any, schema: str | None) -> Any:
        """Return the JSON result of a run as the class it had; plain data, with a warning, when that fails.

        `schema` is the name recorded with the result. The declared output schema wins, unless the recorded
        class is known here and derives from it.
        """
        declared = self.output_schema
        if declared is None or (schema and schema.startswith("list[")):
            return rebuild(data, schema)
        recorded = find_model(schema, known=[declared]) if schema else None
        model = recorded if recorded is not None and issubclass(recorded, declared) else declared
        return rebuild(data, class_name(model), known=[model])

    # -- what callers do with it

    async def invoke(
        self,
        client: Any = None,
        payload: Any = None,
        queue: str | Queue | dict[str, Any] | None = None,
        concurrency_key: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        initial_state: BaseModel | dict[str, Any] | None = None,
        run_timeout_seconds: int | None = None,
        *,
        priority: int | None = None,
        idempotency_key: str | None = None,
        delay_seconds: float | None = None,
        debounce_key: str | None = None,
        debounce_seconds: float | None = None,
    ) -> ExecutionHandle:
        """Start a run and return its handle at once.

        `client` may be left out: `invoke(payload)`. `queue` replaces the queue of the definition; its limit
        counts runs with equal `concurrency_key` together. The arguments from `priority` on are those of
        `PolosClient.invoke`.

        Raises:
            RuntimeError: Called inside a run, where `ctx.step.invoke` must be used.
            ValueError: The payload or initial state is missing, unfit or too large.
            TypeError: The payload cannot be JSON.
        """
        refuse_inside_run(f"invoke() of {self.what}")
        starter, payload = client_and_payload(client, payload)
        name, limit = queue_settings(queue, self.queue_name)
        return await starter.invoke(
            self.id,
            self.check_payload(payload),
            queue_name=name,
            queue_concurrency_limit=self.queue_concurrency_limit if queue is None else limit,
            concurrency_key=concurrency_key,
            session_id=session_id,
            user_id=user_id,
            initial_state=self.check_state(initial_state),
            run_timeout_seconds=run_timeout_seconds,
            **given(
                priority=priority,
                idempotency_key=idempotency_key,
                delay_seconds=delay_seconds,
                debounce_key=debounce_key,
                debounce_seconds=debounce_seconds,
            ),
        )

    async def run(
        self,
        client: Any = None,
        payload: Any = None,
        queue: str | Queue | dict[str, Any] | None = None,
        concurrency_key: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        timeout: float | None = 600.0,
        initial_state: BaseModel | dict[str, Any] | None = None,
        *,
        priority: int | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Start a run, wait until it has ended, and return its result.

        `timeout` is in seconds, None for no limit; the run gets it as its own limit too. The other arguments
        are those of `invoke`.

        Raises:
            RunFailedError: The run failed or was cancelled.
            WorkflowTimeoutError: It did not end in time; it may still be going.
            RuntimeError: Called inside a run, where `ctx.step.invoke_and_wait` must be used.
            ValueError: The payload or initial state is missing, unfit or too large.
            TypeError: The payload cannot be JSON.
        """
        refuse_inside_run(f"run() of {self.what}")
        starter, payload = client_and_payload(client, payload)
        handle = await self.invoke(
            starter,
            payload,
            queue=queue,
            concurrency_key=concurrency_key,
            session_id=session_id,
            user_id=user_id,
            initial_state=initial_state,
            run_timeout_seconds=None if timeout is None else max(1, math.ceil(timeout)),
            priority=priority,
            idempotency_key=idempotency_key,
        )
        record = await starter.wait(handle.id, timeout_seconds=timeout)
        return self._result_of(record, handle.id, timeout)

    def invoke_sync(self, client: Any = None, payload: Any = None, **options: Any) -> ExecutionHandle:
        """Return what `invoke` does, for code that cannot await; `options` are its further arguments."""
        return call_sync(client, lambda client: self.invoke(client, payload, **options))

    def run_sync(self, client: Any = None, payload: Any = None, **options: Any) -> Any:
        """Return what `run` does, for code that cannot await; `options` are its further arguments."""
        return call_sync(client, lambda client: self.run(client, payload, **options))

    def _result_of(self, record: dict[str, Any], execution_id: str, timeout_seconds: float | None) -> Any:
        """Return the result in the record of an ended run, or raise why there is none."""
        match record["status"]:
            case "completed":
                return self.rebuild_result(record.get("result"), record.get("output_schema_name"))
            case _ if record.get("cancelled_by") == "timeout":
                limit_seconds = timeout_seconds or record.get("run_timeout_seconds") or 0
                raise WorkflowTimeoutError(execution_id, limit_seconds)
            case status:
                reason = record.get("error") or status
                raise RunFailedError(
                    f"Workflow execution failed: {reason} (run {execution_id} of {self.what})"
                )


def _check_trigger(topic: object, size: object, timeout_seconds: float | None) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"batch_size={size!r} cannot be used: give a whole number of 1 or more")
    if timeout_seconds is not None and not 0 < timeout_seconds < math.inf:
        raise ValueError(
            f"batch_timeout_seconds={timeout_seconds!r} cannot be used: give more than 0, or None"
        )
    if topic is not None and check_topic(topic).startswith(TREE_TOPICS):
        raise ValueError(
            f"trigger_on_event={topic!r} cannot be used: topics that begin with {TREE_TOPICS!r} are of "
            "single runs. Publish to a topic of your own, as 'orders/created'"
        )


@overload
def workflow(id: UserFunction, /) -> Workflow: ...


@overload
def workflow(
    id: str | None = None,
    description: str | None = None,
    queue: str | Queue | dict[str, Any] | None = None,
    trigger_on_event: str | None = None,
    batch_size: int = 1,
    batch_timeout_seconds: int | None = None,
    schedule: Schedule = None,
    on_start: Any = None,
    on_end: Any = None,
    state_schema: type[BaseModel] | None = None,
    *,
    route: str | None = None,
    from_beginning: bool = False,
) -> Callable[[UserFunction], Workflow]: ...


def workflow(
    id: str | UserFunction | None = None,
    description: str | None = None,
    queue: str | Queue | dict[str, Any] | None = None,
    trigger_on_event: str | None = None,
    batch_size: int = 1,
    batch_timeout_seconds: int | None = None,
    schedule: Schedule = None,
    on_start: Any = None,
    on_end: Any = None,
    state_schema: type[BaseModel] | None = None,
    *,
    route: str | None = None,
    from_beginning: bool = False,
) -> Workflow | Callable[[UserFunction], Workflow]:
    """Make a function ``(ctx)`` or ``(ctx, payload)`` a registered `Workflow`.

    Used as ``@workflow``, ``@workflow()`` or ``@workflow(id="report")``; the function names it by default.
    `trigger_on_event` names a topic whose events start it, from now on or `from_beginning` of the topic.

    Raises:
        ValueError: The id is empty, or schedule, trigger and queue contradict each other or cannot be read.
        TypeError: The signature does not fit, or a hook is not callable.
    """
    if callable(id):
        return workflow()(id)

    def decorate(func: UserFunction) -> Workflow:
        name = id_or_name(id, func)
        check_signature(func, f"workflow {name!r}")
        return register(
            Workflow(
                name,
                func,
                description,
                queue=queue,
                trigger_on_event=trigger_on_event,
                batch_size=batch_size,
                batch_timeout_seconds=batch_timeout_seconds,
                schedule=schedule,
                on_start=on_start,
                on_end=on_end,
                state_schema=state_schema,
                route=route,
                from_beginning=from_beginning,
            )
        )

    return decorate
