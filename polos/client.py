"""`PolosClient`: starts runs, waits for them, reads and cancels them; and its sync forms."""

from __future__ import annotations

import asyncio
import functools
import os
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from dotenv import load_dotenv

from polos import serialization
from polos.blocking import Background
from polos.current import current_context, refuse_inside_run
from polos.direct import DirectTransport
from polos.handles import ExecutionHandle
from polos.inputs import check_labels
from polos.operations import RunOperations
from polos.queues import check_limit, check_start
from polos.registry import get_workflow
from polos.schedules import SyncSchedules
from polos.sessions import SyncSessions
from polos.settings import Settings
from polos.transport import DEFAULT_API_URL, RunRequest, Transport, server_address
from polos.types import BatchWorkflowInput

if TYPE_CHECKING:
    from polos.backend import ClientBackend

load_dotenv(".env")

P = ParamSpec("P")
T = TypeVar("T")


class PolosClient(RunOperations):
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
    usage = _waiting(PolosClient.usage)
    start_worker = _waiting(PolosClient.start_worker)
    follow = _iterating(PolosClient.follow)
    follow_topic = _iterating(PolosClient.follow_topic)

    @property
    def schedules(self) -> SyncSchedules:
        """Its project's schedules."""
        return SyncSchedules(self.client.schedules, self.call)

    @property
    def sessions(self) -> SyncSessions:
        """What agents remember of its project's sessions."""
        return SyncSessions(self.client.sessions, self.call)

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


_default: list[PolosClient] = []  # the last one counts


def default_client() -> PolosClient:
    """Return the client of ``agent.run("text")``: configured by the environment, made on first use."""
    if not _default:
        _default.append(PolosClient())
    return _default[-1]


@contextmanager
def as_default(client: PolosClient) -> Iterator[None]:
    """Have `default_client` return this one meanwhile."""
    _default.append(client)
    try:
        yield
    finally:
        _default.remove(client)


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
