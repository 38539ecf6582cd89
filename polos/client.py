"""`PolosClient`: starts runs, waits for them, reads and cancels them, straight on journal and broker."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dotenv import load_dotenv

from polos import serialization
from polos.current import current_context, refuse_inside_run
from polos.errors import ConfigurationError, IdempotencyError, WorkflowTimeoutError
from polos.handles import ExecutionHandle
from polos.inputs import check_labels
from polos.records import api_time, record_of
from polos.registry import get_workflow
from polos.settings import Settings
from polos.types import BatchWorkflowInput

if TYPE_CHECKING:
    from polos.backend import ClientBackend

load_dotenv(".env")
logger = logging.getLogger("polos.client")

NOBODY_SERVES_SECONDS = 1.0  # after which a client that waits says that no live worker serves its run
UNKNOWN_KIND = ""  # neither this process nor a live worker defines it; whoever claims the run knows
SAME_KEY = ("name", "input", "initial_state")


class PolosClient:
    """A client in the same trust zone as its workers: it needs the database and the broker, no server.

    Args:
        api_url: Kept for programs that pass it; only a local URL is accepted, since there is no server.
        project_id: Tenant whose runs it starts and sees; POLOS_PROJECT_ID, else ``default``.
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
    ) -> None:
        self.settings = settings or Settings.from_environment()
        self.api_url = api_url or os.environ.get("POLOS_API_URL", "") or "http://localhost:8080"
        self.api_key = api_key or os.environ.get("POLOS_API_KEY") or None
        self.project_id = project_id or self.settings.project_id
        self.deployment_id = deployment_id or os.environ.get("POLOS_DEPLOYMENT_ID") or None
        _check_local(self.api_url)
        self._backend: ClientBackend | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()

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
    ) -> ExecutionHandle:
        """Start a run by id and return its handle at once; the definition need not be known here.

        The run exists once this returns, even if the broker does not answer. With an `idempotency_key` that
        was used before, the earlier run's handle is returned.

        Raises:
            JournalUnavailableError: The database does not answer; nothing was started.
            IdempotencyError: The key was used with another workflow or input.
            ValueError, TypeError: The payload or state cannot be stored.
        """
        refuse_inside_run(f"invoke({workflow_id!r})")
        request = self._request(
            BatchWorkflowInput(
                id=workflow_id,
                payload=serialization.to_data(payload),
                initial_state=serialization.to_data(initial_state),
                queue=queue_name,
                concurrency_key=concurrency_key,
            ),
            session_id,
            user_id,
        )
        check_labels(idempotency_key=idempotency_key)
        request.update(run_timeout_seconds=run_timeout_seconds, idempotency_key=idempotency_key)
        [handle] = await self._start([request])
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
        requests = []
        for item in workflows:
            definition = get_workflow(item.id)
            if definition is None:
                raise ValueError(
                    f"batch_invoke: {item.id!r} is not defined in this process; import its module"
                )
            checked = item.model_copy(
                update={
                    "payload": definition.check_payload(item.payload),
                    "initial_state": definition.check_state(item.initial_state),
                }
            )
            request = self._request(checked, session_id, user_id)
            requests.append({**request, "run_timeout_seconds": item.run_timeout_seconds})
        return await self._start(requests) if requests else []

    def _request(
        self, item: BatchWorkflowInput, session_id: str | None, user_id: str | None
    ) -> dict[str, Any]:
        """Return the columns of a new root run that depend on the caller."""
        check_labels(
            workflow_id=item.id,
            queue=item.queue,
            concurrency_key=item.concurrency_key,
            session_id=session_id,
            user_id=user_id,
        )
        context = current_context.get()
        definition = get_workflow(item.id)
        limit = self.settings.max_value_bytes
        run_id = str(uuid.uuid4())
        return {
            "id": run_id,
            "root_id": run_id,
            "project": self.project_id,
            "kind": definition.workflow_type if definition is not None else None,
            "name": item.id,
            "root_name": item.id,
            "route": definition.route if definition is not None else None,
            "queue": item.queue or (definition.queue_name if definition is not None else item.id),
            "concurrency_key": item.concurrency_key,
            "session_id": session_id or (context and context.session_id) or str(uuid.uuid4()),
            "user_id": user_id or (context.user_id if context else None),
            "input": _stored(item.payload, limit, f"payload of {item.id!r}"),
            "initial_state": _stored(item.initial_state, limit, f"initial state of {item.id!r}"),
        }

    async def _start(self, requests: list[dict[str, Any]]) -> list[ExecutionHandle]:
        backend = await self._ready()
        for request in requests:
            await self._place(backend, request)
        runs = await asyncio.to_thread(backend.create_runs, requests)
        for request, run in zip(requests, runs, strict=True):
            _check_same(request, run)
        return [_handle(run) for run in runs]

    async def _place(self, backend: ClientBackend, request: dict[str, Any]) -> None:
        """Choose deployment and kind, and see to a worker that serves the run."""
        kind = request["kind"]
        found = await asyncio.to_thread(
            backend.find_deployment, self.project_id, request["name"], kind, self.deployment_id
        )
        request["deployment"], request["kind"] = found.deployment, kind or found.kind or UNKNOWN_KIND
        if not found.is_served and kind is not None:
            await self._embed_worker()

    # -- waiting and reading

    async def wait(self, execution_id: str, *, timeout_seconds: float | None = None) -> dict[str, Any]:
        """Return the record of a run once it has ended.

        Says so when no live worker serves the run, and goes on waiting.

        Raises:
            WorkflowTimeoutError: It did not end in time; it may still be going.
            ValueError: There is no such run.
        """
        backend = await self._ready()
        ended = asyncio.Event()
        try:
            async with asyncio.timeout(timeout_seconds), backend.end_of_run(execution_id, ended):
                return await self._wait(backend, execution_id, ended)
        except TimeoutError as error:
            raise WorkflowTimeoutError(execution_id, timeout_seconds or 0.0) from error

    async def _wait(self, backend: ClientBackend, execution_id: str, ended: asyncio.Event) -> dict[str, Any]:
        told = False
        pause = NOBODY_SERVES_SECONDS
        while True:
            record = await self.get_execution(execution_id)
            if record["completed_at"] is not None:
                return record
            try:
                async with asyncio.timeout(pause):
                    await ended.wait()
            except TimeoutError:
                told = told or await self._tell_why_it_stands(backend, record)
                pause = self.settings.result_poll_seconds
            ended.clear()

    async def _tell_why_it_stands(self, backend: ClientBackend, record: dict[str, Any]) -> bool:
        problem = None
        if record["status"] == "blocked":
            problem = f"Run {record['id']} is blocked until a person decides: {record['error']}"
        elif record["status"] in {"queued", "waiting"}:
            problem = await asyncio.to_thread(backend.why_unserved, record)
        if problem is not None:
            logger.warning(problem)
        return problem is not None

    async def get_execution(self, execution_id: str) -> dict[str, Any]:
        """Return the record of a run as plain JSON data.

        Raises:
            ValueError: There is no such run in this project.
        """
        backend = await self._ready()
        row = await asyncio.to_thread(backend.read_run, execution_id)
        if row is None or row["project"] != self.project_id:
            raise ValueError(f"There is no run {execution_id!r} in project {self.project_id!r}")
        return record_of(row)

    async def get_result(self, execution_id: str) -> dict[str, Any]:
        """Return where a run stands, its result rebuilt as the class it had where that is known here."""
        record = await self.get_execution(execution_id)
        names = (
            "status",
            "result",
            "error",
            "created_at",
            "completed_at",
            "parent_execution_id",
            "root_workflow_id",
            "root_execution_id",
            "output_schema_name",
            "step_key",
        )
        shown = {name: record[name] for name in names}
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
        backend = await self._ready()
        row = await asyncio.to_thread(backend.read_run, execution_id)
        if row is None or row["project"] != self.project_id:
            return False
        cancelled = await asyncio.to_thread(backend.cancel, row)
        for run in cancelled:
            backend.tell_cancelled(run)
        return bool(cancelled)

    # -- life

    async def close(self) -> None:
        """Give connections up; an embedded worker is drained first. Using the client again reconnects."""
        backend, self._backend = self._backend, None
        if backend is not None:
            await backend.close()

    async def __aenter__(self) -> PolosClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start_worker(self) -> None:
        """Serve this process's definitions from a thread of it."""
        backend = await self._ready()
        await asyncio.to_thread(backend.start_worker)

    async def _embed_worker(self) -> None:
        backend = await self._ready()
        if self.settings.embedded_worker == "auto" and not backend.rings_through_own_app:
            await self.start_worker()

    async def _ready(self) -> ClientBackend:
        """Return the connections of this process; a forked child makes its own."""
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._backend = os.getpid(), None
            if self._backend is None:
                # A program that only defines agents pays for no database driver.
                from polos.backend import ClientBackend  # noqa: PLC0415

                self._backend = ClientBackend(self.settings)
            backend: ClientBackend = self._backend
        if not backend.is_connected:
            await asyncio.to_thread(backend.connect)
        if self.settings.embedded_worker == "1":
            await asyncio.to_thread(backend.start_worker)
        return backend


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


def _check_local(api_url: str) -> None:
    host = urlsplit(api_url).hostname or ""
    if host not in {"localhost", "::1", "0.0.0.0"} and not host.startswith("127."):
        raise ConfigurationError(
            f"api_url={api_url!r}: this version of polos talks to the database and broker itself. Leave "
            "api_url out and set POLOS_DATABASE_URL and POLOS_BROKER_URL to those of your workers."
        )


def _stored(value: Any, limit_bytes: int, what: str) -> str | None:
    return None if value is None else serialization.dumps(value, limit_bytes=limit_bytes, what=what)


def _check_same(request: dict[str, Any], run: dict[str, Any]) -> None:
    if run["id"] != request["id"] and any(run[name] != request[name] for name in SAME_KEY):
        raise IdempotencyError(
            f"The idempotency key {request['idempotency_key']!r} was used for run {run['id']} of "
            f"{run['name']!r} with another input; use a new key for a new run"
        )


def _handle(run: dict[str, Any]) -> ExecutionHandle:
    return ExecutionHandle(
        id=run["id"],
        workflow_id=run["name"],
        created_at=api_time(run["created_at"]),
        root_workflow_id=run["root_name"],
        root_execution_id=run["root_id"],
        session_id=run["session_id"],
        user_id=run["user_id"],
    )
