"""`PolosClient`: starts runs, waits for them, reads and cancels them; and its sync forms."""

from __future__ import annotations

import asyncio
import functools
import os
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from dotenv import load_dotenv

from polos import serialization
from polos.blocking import Background
from polos.current import current_context, refuse_inside_run
from polos.direct import DirectTransport
from polos.errors import WorkflowTimeoutError
from polos.handles import ExecutionHandle
from polos.inputs import check_labels
from polos.queues import QueueInfo, check_limit, check_start
from polos.records import RESULT_NAMES
from polos.registry import get_workflow
from polos.schedules import Schedules, SyncSchedules
from polos.settings import Settings
from polos.transport import DEFAULT_API_URL, ForkRequest, RunRequest, Transport, server_address
from polos.types import BatchWorkflowInput

if TYPE_CHECKING:
    from polos.backend import ClientBackend
    from polos.events import EventData, StreamEvent

load_dotenv(".env")

P = ParamSpec("P")
T = TypeVar("T")


class PolosClient:
    """A client of agents and workflows, from any event loop and, through `sync`, without one.

    In the same trust zone as its workers it goes straight to their database and broker; with the URL of a
    server and an API key it speaks HTTP. docs/clients.md says when which.

    Args:
        api_url: Of a `polos server`; POLOS_API_URL.
        api_key: For that server; POLOS_API_KEY.
        project_id: Tenant whose runs it starts and sees; POLOS_PROJECT_ID, else ``default``, or what the key
            is for.
        deployment_id: Version of the code that shall run; None means the newest.

    Raises:
        ConfigurationError: A setting is unusable.
    """

    def __init__(
        self,
        api_url: str | None = None,
        api_key: str | None = None,
        project_id: str | None = None,
        deployment_id: str | None = None,
        *,
        settings: Settings | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.settings = settings or Settings.from_environment()
        self.api_url = api_url or os.environ.get("POLOS_API_URL", "") or DEFAULT_API_URL
        self.api_key = api_key or os.environ.get("POLOS_API_KEY") or None
        self.project_id = project_id or self.settings.project_id
        self.deployment_id = deployment_id or os.environ.get("POLOS_DEPLOYMENT_ID") or None
        self._transport = transport or self._chosen_transport(api_url, api_key, project_id)
        self._background = Background(self._transport.leave_loop)

    @classmethod
    def over(
        cls,
        backend: ClientBackend,
        *,
        project_id: str,
        deployment_id: str | None = None,
        settings: Settings | None = None,
    ) -> PolosClient:
        """Return a client on connections that others use too; closing it leaves them open."""
        settings = settings or Settings.from_environment()
        transport = DirectTransport(
            settings, project_id=project_id, deployment_id=deployment_id, backend=backend
        )
        return PolosClient(
            project_id=project_id, deployment_id=deployment_id, settings=settings, transport=transport
        )

    def _chosen_transport(self, api_url: str | None, api_key: str | None, project: str | None) -> Transport:
        address = server_address(api_url, api_key, os.environ)
        if address is None:
            return DirectTransport(
                self.settings, project_id=self.project_id, deployment_id=self.deployment_id
            )
        from polos.remote.transport import RemoteTransport  # noqa: PLC0415 - loads an HTTP client

        # A key is for one project, which whoever has it need not know.
        known = self.project_id if address.is_local else project or os.environ.get("POLOS_PROJECT_ID") or None
        return RemoteTransport(
            address,
            project_id=known,
            deployment_id=self.deployment_id,
            limit_bytes=self.settings.max_value_bytes,
        )

    @property
    def sync(self) -> SyncClient:
        """The same methods for code that cannot await: each returns when it is done."""
        return SyncClient(self, self._background)

    # -- starting

    async def invoke(
        self,
        workflow_id: str,
        payload: Any = None,
        queue_name: str | None = None,
        queue_concurrency_limit: int | None = None,
        concurrency_key: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        initial_state: Any = None,
        run_timeout_seconds: float | None = None,
        idempotency_key: str | None = None,
        *,
        priority: int | None = None,
        delay_seconds: float | None = None,
        debounce_key: str | None = None,
        debounce_seconds: float | None = None,
    ) -> ExecutionHandle:
        """Start a run by id and return its handle at once; the definition need not be known here.

        The run exists once this returns, even if the broker does not answer. With an `idempotency_key` that
        was used before, the earlier run's handle is returned.

        Args:
            workflow_id: Of a workflow, agent or tool.
            payload: What it takes.
            queue_name: By default the one of the definition.
            queue_concurrency_limit: Of the queue, if it has none yet.
            concurrency_key: The limit counts runs with equal keys together.
            session_id: By default a new one.
            user_id: Whose run it is.
            initial_state: Of its state.
            run_timeout_seconds: How long it may run.
            idempotency_key: Same key, same run.
            priority: 0 (last) to 9 (first) among what waits to start; 5 by default.
            delay_seconds: Start no earlier than this from now.
            debounce_key: Calls with one key collapse into one run with the last payload.
            debounce_seconds: That run starts when there was no such call for so long.

        Raises:
            ServiceUnavailableError: The database or server does not answer; safe to repeat with the same key.
            IdempotencyError: The key was used with another workflow or input.
            ValueError, TypeError: The payload or state cannot be stored.
        """
        refuse_inside_run(f"invoke({workflow_id!r})")
        request = RunRequest(
            workflow_id=workflow_id,
            payload=serialization.to_data(payload),
            initial_state=serialization.to_data(initial_state),
            queue_name=queue_name,
            queue_concurrency_limit=queue_concurrency_limit,
            concurrency_key=concurrency_key,
            session_id=session_id,
            user_id=user_id,
            run_timeout_seconds=run_timeout_seconds,
            idempotency_key=idempotency_key,
            priority=priority,
            delay_seconds=delay_seconds,
            debounce_key=debounce_key,
            debounce_seconds=debounce_seconds,
        )
        [handle] = await self.start_runs([request])
        return handle

    async def batch_invoke(
        self, workflows: list[BatchWorkflowInput], session_id: str | None = None, user_id: str | None = None
    ) -> list[ExecutionHandle]:
        """Start several runs in one transaction; return their handles in order.

        Raises:
            ValueError: An id is not defined in this process, or a payload does not fit; nothing was started.
        """
        refuse_inside_run("batch_invoke()")
        session_id = session_id or str(uuid.uuid4())
        requests = [_batch_request(item, session_id, user_id) for item in workflows]
        return await self.start_runs(requests)

    async def start_runs(self, requests: Sequence[RunRequest]) -> list[ExecutionHandle]:
        """Start runs from plain data, all or none; no definition need be known here.

        Raises:
            ServiceUnavailableError: The database or server does not answer; safe to repeat with equal keys.
            IdempotencyError: A key was used with another workflow or input.
            ValueError, TypeError: A payload, state or label cannot be stored.
        """
        complete = [self._completed(request) for request in requests]
        return await self._transport.start_runs(complete) if complete else []

    def _completed(self, request: RunRequest) -> RunRequest:
        """Return a checked request, with session and user of the run that this code belongs to, if any."""
        check_labels(
            workflow_id=request.workflow_id,
            queue=request.queue_name,
            concurrency_key=request.concurrency_key,
            session_id=request.session_id,
            user_id=request.user_id,
            idempotency_key=request.idempotency_key,
            debounce_key=request.debounce_key,
        )
        check_limit(request.queue_concurrency_limit or None)
        check_start(
            priority=request.priority,
            delay_seconds=request.delay_seconds,
            debounce_key=request.debounce_key,
            debounce_seconds=request.debounce_seconds,
            idempotency_key=request.idempotency_key,
        )
        context = current_context.get()
        definition = get_workflow(request.workflow_id)
        return replace(
            request,
            queue_name=request.queue_name or (definition.queue_name if definition is not None else None),
            session_id=request.session_id or (context and context.session_id) or str(uuid.uuid4()),
            user_id=request.user_id or (context.user_id if context else None),
        )

    # -- waiting and reading

    async def wait(self, execution_id: str, *, timeout_seconds: float | None = None) -> dict[str, Any]:
        """Return the record of a run once it has ended.

        Says so when no live worker serves the run, and goes on waiting.

        Raises:
            WorkflowTimeoutError: It did not end in time; it may still be going.
            ValueError: There is no such run.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                return self._known(execution_id, await self._transport.ended_run(execution_id))
        except TimeoutError as error:
            raise WorkflowTimeoutError(execution_id, timeout_seconds or 0.0) from error

    async def get_execution(self, execution_id: str) -> dict[str, Any]:
        """Return the record of a run as plain JSON data.

        Raises:
            ValueError: There is no such run in this project.
        """
        return self._known(execution_id, await self._transport.read_run(execution_id))

    def _known(self, execution_id: str, record: dict[str, Any] | None) -> dict[str, Any]:
        if record is None:
            raise ValueError(f"There is no run {execution_id!r} in project {self.project_id!r}")
        return record

    async def get_result(self, execution_id: str) -> dict[str, Any]:
        """Return where a run stands, its result rebuilt as the class it had where that is known here."""
        record = await self.get_execution(execution_id)
        shown = {name: record[name] for name in RESULT_NAMES}
        if record["status"] == "completed":
            definition = get_workflow(record["workflow_id"])
            schema = record["output_schema_name"]
            shown["result"] = (
                definition.rebuild_result(record["result"], schema)
                if definition is not None
                else serialization.rebuild(record["result"], schema)
            )
        return shown

    async def cancel_execution(self, execution_id: str) -> bool:
        """Cancel a run and all it started; False when it has ended or does not exist."""
        return await self._transport.cancel_run(execution_id)

    async def retry(self, execution_id: str) -> None:
        """Let a failed or cancelled run go on from its journal; it has the same id and a new end.

        Completed steps keep their outcomes. A failure that the code did not handle is taken back and its step
        executed again, children included; so is what was cut off by the end.

        Raises:
            ValueError: There is no such run, another run started it (retry that tree's root), or it has
                neither failed nor been cancelled.
        """
        refuse_inside_run(f"retry({execution_id!r})")
        await self._transport.retry_run(execution_id)

    async def fork(
        self,
        run_id: str,
        from_step: str | None = None,
        *,
        input: Any = None,
        patch: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        idempotency_key: str | None = None,
        deployment_id: str | None = None,
    ) -> ExecutionHandle:
        """Start a new run that goes on from a copy of another one's journal, and return its handle at once.

        The other run, live or ended, is left alone. What it started is not started again: outcomes of its
        children are copied like those of other steps.

        Args:
            run_id: The run to begin from.
            from_step: Key of the first step that is executed again; what had an outcome when it was first
                asked for is taken over. None: all outcomes there are.
            input: Instead of the run's own, if it is not None.
            patch: Values to go on with instead of recorded outcomes, by keys of steps that are taken over.
            session_id: By default the run's own.
            user_id: By default the run's own.
            idempotency_key: With a key that was used before, the earlier fork is returned.
            deployment_id: Version of the code; by default the client's, else the run's own.

        Raises:
            ValueError: There is no such run or step, nothing is recorded, or a patched step is not taken
                over.
            TypeError: A value cannot be JSON.
        """
        refuse_inside_run(f"fork({run_id!r})")
        check_labels(session_id=session_id, user_id=user_id, idempotency_key=idempotency_key)
        request = ForkRequest(
            execution_id=run_id,
            from_step=from_step,
            input=serialization.to_data(input),
            patch={key: serialization.to_data(value) for key, value in (patch or {}).items()},
            session_id=session_id,
            user_id=user_id,
            idempotency_key=idempotency_key,
            deployment_id=deployment_id,
        )
        return await self._transport.fork_run(request)

    async def resume(
        self,
        suspend_workflow_id: str,
        suspend_execution_id: str,
        suspend_step_key: str,
        data: Any,
        suspend_run_id: str | None = None,
    ) -> None:
        """Answer a ``ctx.step.suspend``; nothing happens when nobody waits (any more).

        Args:
            suspend_workflow_id: Of the root run.
            suspend_execution_id: The root run, even if one below it waits.
            suspend_step_key: What it waits under.
            data: The answer, a dict or model.
            suspend_run_id: The run that waits, where several of the tree do under one key; else the one that
                waits longest gets the answer.

        Raises:
            ValueError: There is no such run, or the data is too large.
            TypeError: The data cannot be JSON.
        """
        given = serialization.to_data(data)
        await self._transport.resume_run(suspend_execution_id, suspend_step_key, given, run_id=suspend_run_id)

    # -- events

    def follow(
        self, run_id: str, *, after: str | int | None = None, live: bool = False
    ) -> AsyncIterator[StreamEvent]:
        """Return the events of the run tree that a run belongs to, until the run's own end was delivered.

        Args:
            run_id: Of any run of the tree.
            after: None for all from the start of the run; the id of an event for exactly what follows it;
                a sequence id for what follows that.
            live: From now on: waits for people that are still pending first, and the end at once if it has
                ended.

        Raises:
            ValueError: There is no such run, or `after` is no position.
        """
        return self._transport.follow(run_id, after=after, live=live)

    def follow_topic(
        self, topic: str, *, after: int | None = None, after_time: datetime | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Return the events of a topic for ever: from now on, or those after a sequence id or a time."""
        return self._transport.follow_topic(topic, after=after, after_time=after_time)

    async def publish_events(
        self,
        topic: str,
        events: list[EventData],
        *,
        execution_id: str | None = None,
        root_execution_id: str | None = None,
    ) -> list[int]:
        """Publish events on a topic, all or none; return their sequence ids, in order and without a gap."""
        if not events:
            return []
        return await self._transport.publish_events(
            topic, events, execution_id=execution_id, root_execution_id=root_execution_id
        )

    async def list_events(
        self, topic: str, *, after: int = 0, limit: int = 100, descending: bool = False
    ) -> list[StreamEvent]:
        """Return recorded events of a topic with sequence ids above `after`; `descending`: newest first."""
        return await self._transport.list_events(topic, after=after, limit=limit, descending=descending)

    # -- queues

    async def list_queues(self) -> list[QueueInfo]:
        """Return the queues of the project that have limits, or runs that wait to be admitted."""
        return await self._transport.list_queues()

    # -- schedules

    @property
    def schedules(self) -> Schedules:
        """Its project's schedules; `polos.schedules` has the same as functions."""
        return self._transport.schedules

    # -- life

    async def close(self) -> None:
        """Give connections up; an embedded worker is drained first. Using the client again reconnects."""
        if not self._background.is_here:
            await asyncio.to_thread(self._background.stop)
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start_worker(self) -> None:
        """Serve this process's definitions from a thread of it.

        Raises:
            ConfigurationError: The client talks to a server, which leaves that to its workers.
        """
        await self._transport.start_worker()


def _waiting(
    method: Callable[Concatenate[PolosClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncClient, P], T]:
    """Return the sync form of a method."""

    @functools.wraps(method)
    def wait(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.call(method(self.client, *args, **kwargs))

    return wait


def _iterating(
    method: Callable[Concatenate[PolosClient, P], AsyncIterator[T]],
) -> Callable[Concatenate[SyncClient, P], Iterator[T]]:
    """Return the sync form of a method that gives an async iterator."""

    @functools.wraps(method)
    def iterate(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self.iterate(method(self.client, *args, **kwargs))

    return iterate


class SyncClient:
    """The methods of a client for code that cannot await, from any thread; made by `PolosClient.sync`.

    They run on an event loop in a thread of the client's own. Called on an event loop, they hold it up, as
    all that blocks does.
    """

    def __init__(self, client: PolosClient, background: Background) -> None:
        self.client = client
        self._background = background

    invoke = _waiting(PolosClient.invoke)
    batch_invoke = _waiting(PolosClient.batch_invoke)
    start_runs = _waiting(PolosClient.start_runs)
    wait = _waiting(PolosClient.wait)
    get_execution = _waiting(PolosClient.get_execution)
    get_result = _waiting(PolosClient.get_result)
    cancel_execution = _waiting(PolosClient.cancel_execution)
    retry = _waiting(PolosClient.retry)
    fork = _waiting(PolosClient.fork)
    resume = _waiting(PolosClient.resume)
    publish_events = _waiting(PolosClient.publish_events)
    list_events = _waiting(PolosClient.list_events)
    list_queues = _waiting(PolosClient.list_queues)
    start_worker = _waiting(PolosClient.start_worker)
    follow = _iterating(PolosClient.follow)
    follow_topic = _iterating(PolosClient.follow_topic)

    @property
    def schedules(self) -> SyncSchedules:
        """Its project's schedules."""
        return SyncSchedules(self.client.schedules, self.call)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what any coroutine returns, such as ``client.sync.call(handle.get(client))``."""
        return self._background.call(work)

    def iterate(self, items: AsyncIterable[T]) -> Iterator[T]:
        """Yield what any async iterator yields."""
        return self._background.iterate(items)

    def close(self) -> None:
        """Give connections and the loop up. Using the client again reconnects."""
        self.call(self.client.close())
        self._background.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def batch_invoke(
    client: PolosClient,
    workflows: list[BatchWorkflowInput],
    session_id: str | None = None,
    user_id: str | None = None,
) -> list[ExecutionHandle]:
    """Start several runs at once; see `PolosClient.batch_invoke`."""
    refuse_inside_run("batch_invoke()")
    return await client.batch_invoke(workflows, session_id, user_id)


_default: list[PolosClient] = []


def default_client() -> PolosClient:
    """Return the client of ``agent.run("text")``: configured by the environment, made on first use."""
    if not _default:
        _default.append(PolosClient())
    return _default[0]


def _batch_request(item: BatchWorkflowInput, session_id: str, user_id: str | None) -> RunRequest:
    definition = get_workflow(item.id)
    if definition is None:
        raise ValueError(f"batch_invoke: {item.id!r} is not defined in this process; import its module")
    return RunRequest(
        workflow_id=item.id,
        payload=definition.check_payload(item.payload),
        initial_state=definition.check_state(item.initial_state),
        queue_name=item.queue or definition.queue_name,
        queue_concurrency_limit=definition.queue_concurrency_limit if item.queue is None else None,
        concurrency_key=item.concurrency_key,
        priority=item.priority,
        session_id=session_id,
        user_id=user_id,
        run_timeout_seconds=item.run_timeout_seconds,
    )
