"""The way of a client in the same trust zone as its workers: straight to journal and broker."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from polos import serialization
from polos.errors import IdempotencyError, InputError
from polos.forks import Forked
from polos.handles import ExecutionHandle
from polos.queues import DEFAULT_PRIORITY, QueueInfo
from polos.records import api_time, record_of
from polos.registry import get_all_workflows, get_workflow
from polos.settings import Settings
from polos.transport import ForkRequest, RunRequest

if TYPE_CHECKING:
    from polos.backend import ClientBackend
    from polos.events import EventData, StreamEvent
    from polos.remembering import DirectSessions
    from polos.timetable import DirectSchedules
    from polos.usage import UsageReport, UsageRequest
    from polos.waits import Wait

logger = logging.getLogger("polos.client")

NOBODY_SERVES_SECONDS = 1.0  # after which a client that waits says that no live worker serves its run
UNKNOWN_KIND = ""  # neither this process nor a live worker defines it; whoever claims the run knows
SAME_KEY = ("name", "input", "initial_state")


class DirectTransport(Forked):
    """Runs of one project, in the journal.

    Args:
        settings: Of this process.
        project_id: Whose runs it starts and sees.
        deployment_id: Version of the code that shall run what it starts; None means the newest.
        backend: Connections to share with others, which then are not closed here; by default its own.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        project_id: str,
        deployment_id: str | None,
        backend: ClientBackend | None = None,
    ) -> None:
        self._settings = settings
        self._project = project_id
        self._deployment = deployment_id
        self._is_shared = backend is not None
        self._backend = backend
        self._served_topics: set[str] = set()
        self._lock = threading.Lock()
        self.watch_forks()

    # -- starting

    async def start_runs(self, requests: Sequence[RunRequest]) -> list[ExecutionHandle]:
        """See `Transport`; a process whose definitions no live worker serves gets a worker of its own."""
        backend = await self.backend()
        rows = [await self._placed(backend, self._columns(request), request) for request in requests]
        runs = await asyncio.to_thread(backend.create_runs, rows)
        for row, run in zip(rows, runs, strict=True):
            _check_same(row, run)
        return [_handle(run) for run in runs]

    def _columns(self, request: RunRequest) -> dict[str, Any]:
        """Return the columns of a new root run that depend on who asks for it."""
        definition = get_workflow(request.workflow_id)
        limit = self._settings.max_value_bytes
        run_id = str(uuid.uuid4())
        return {
            "id": run_id,
            "root_id": run_id,
            "project": self._project,
            "kind": definition.workflow_type if definition is not None else None,
            "name": request.workflow_id,
            "root_name": request.workflow_id,
            "route": definition.route if definition is not None else None,
            "queue": request.queue_name or request.workflow_id,
            "queue_limit": request.queue_concurrency_limit
            or self._settings.default_concurrency_limit
            or None,
            "concurrency_key": request.concurrency_key,
            "priority": DEFAULT_PRIORITY if request.priority is None else request.priority,
            "delay_seconds": request.delay_seconds or request.debounce_seconds or 0.0,
            "debounce_key": request.debounce_key,
            "session_id": request.session_id or str(uuid.uuid4()),
            "user_id": request.user_id,
            "input": _stored(request.payload, limit, f"payload of {request.workflow_id!r}"),
            "initial_state": _stored(
                request.initial_state, limit, f"initial state of {request.workflow_id!r}"
            ),
            "run_timeout_seconds": request.run_timeout_seconds,
            "idempotency_key": request.idempotency_key,
        }

    async def _placed(
        self, backend: ClientBackend, row: dict[str, Any], request: RunRequest
    ) -> dict[str, Any]:
        """Return the row with deployment and kind, once a worker that serves the run is seen to."""
        kind, wanted = row["kind"], request.deployment_id or self._deployment
        found = await asyncio.to_thread(
            backend.offers.find_deployment, self._project, row["name"], kind, wanted
        )
        if not found.is_served and kind is not None:
            await self._embed_worker(backend)
        return {**row, "deployment": found.deployment, "kind": kind or found.kind or UNKNOWN_KIND}

    async def _embed_worker(self, backend: ClientBackend) -> None:
        if self._settings.embedded_worker == "auto" and not backend.rings_through_own_app:
            await asyncio.to_thread(backend.start_worker)

    # -- runs that were started

    async def read_run(self, execution_id: str) -> dict[str, Any] | None:
        """See `Transport`."""
        row = await self._row(execution_id)
        return None if row is None else record_of(row)

    async def _row(self, execution_id: str) -> dict[str, Any] | None:
        backend = await self.backend()
        row = await asyncio.to_thread(backend.read_run, execution_id)
        return row if row is not None and row["project"] == self._project else None

    async def ended_run(self, execution_id: str) -> dict[str, Any] | None:
        """See `Transport`. Notices shorten the wait, and now and then the journal is read."""
        backend = await self.backend()
        ended = asyncio.Event()
        told, pause = False, NOBODY_SERVES_SECONDS
        async with backend.end_of_run(execution_id, ended):
            while True:
                record = await self.read_run(execution_id)
                if record is None or record["completed_at"] is not None:
                    return record
                try:
                    async with asyncio.timeout(pause):
                        await ended.wait()
                except TimeoutError:
                    told = told or await _tell_why_it_stands(backend, record)
                    pause = self._settings.result_poll_seconds
                ended.clear()

    async def cancel_run(self, execution_id: str) -> bool:
        """See `Transport`."""
        row = await self._row(execution_id)
        if row is None:
            return False
        backend = await self.backend()
        cancelled = await asyncio.to_thread(backend.cancel, row)
        for run in cancelled:
            backend.tell_cancelled(run)
        return bool(cancelled)

    async def retry_run(self, execution_id: str) -> None:
        """See `Transport`."""
        backend = await self.backend()
        run = await self._known(execution_id)
        await asyncio.to_thread(backend.retry, run)
        await self._serve(run["name"])

    async def fork_run(self, request: ForkRequest) -> ExecutionHandle:
        """See `Transport`; its deployment is the one of the run it is forked from, if none is named."""
        from polos.forking import forked_row, plan_fork  # noqa: PLC0415 - as `backend`, below

        backend = await self.backend()
        source = await self._known(request.execution_id)
        plan = plan_fork(
            source["id"],
            await asyncio.to_thread(backend.read_steps, source["id"]),
            from_step=request.from_step,
            patch=request.patch,
            max_value_bytes=self._settings.max_value_bytes,
        )
        row = forked_row(
            source,
            request,
            deployment=request.deployment_id or self._deployment or source["deployment"],
            max_value_bytes=self._settings.max_value_bytes,
        )
        run = await asyncio.to_thread(backend.create_fork, row, plan)
        _check_same(row, run)
        await self._serve(run["name"])
        return _handle(run)

    async def _known(self, execution_id: str) -> dict[str, Any]:
        row = await self._row(execution_id)
        if row is None:
            raise InputError(f"There is no run {execution_id!r} in project {self._project!r}{self._where()}")
        return row

    def _where(self) -> str:
        """Say which database was read, where that depends on the folder a program was started in."""
        if self._is_shared or self._settings.database_url:
            return ""
        return (
            f" of the database in {str(self._settings.home.resolve())!r}; programs that share runs are "
            "started in the same folder, or with the same POLOS_HOME"
        )

    async def resume_run(
        self,
        execution_id: str,
        step_key: str,
        data: Any,
        *,
        run_id: str | None = None,
        answered_by: str | None = None,
    ) -> bool:
        """See `Transport`."""
        row = await self._known(execution_id)
        backend = await self.backend()
        answered = await asyncio.to_thread(
            backend.answer_wait, row, step_key, data, run_id=run_id, answered_by=answered_by
        )
        if answered is not None:
            backend.tell_answered(answered)
        return answered is not None

    async def find_wait(self, execution_id: str, step_key: str) -> Wait | None:
        """Return what waits, or waited last, under a key in a run's tree; None for nothing, or no run."""
        row = await self._row(execution_id)
        if row is None:
            return None
        backend = await self.backend()
        return await asyncio.to_thread(backend.find_wait, row, step_key)

    # -- events

    async def follow(
        self, run_id: str, *, after: str | int | None = None, live: bool = False
    ) -> AsyncIterator[StreamEvent]:
        """See `Transport`."""
        backend = await self.backend()
        async for event in backend.feeds.follow(self._project, run_id, after=after, live=live):
            yield event

    async def follow_topic(
        self, topic: str, *, after: int | None = None, after_time: datetime | None = None
    ) -> AsyncIterator[StreamEvent]:
        """See `Transport`."""
        backend = await self.backend()
        async for event in backend.feeds.follow_topic(
            self._project, topic, after=after, after_time=after_time
        ):
            yield event

    async def publish_events(
        self,
        topic: str,
        events: list[EventData],
        *,
        execution_id: str | None = None,
        root_execution_id: str | None = None,
    ) -> list[int]:
        """See `Transport`."""
        backend = await self.backend()
        await self._serve_triggers(topic)
        numbers = await backend.feeds.publish_events(
            self._project, topic, events, execution_id=execution_id, root_execution_id=root_execution_id
        )
        await asyncio.to_thread(backend.fire_triggers, self._project, topic)
        return numbers

    async def _serve_triggers(self, topic: str) -> None:
        """See to it that what this process defines to be triggered by a topic is served."""
        if topic in self._served_topics:
            return
        for name, definition in get_all_workflows().items():
            if definition.trigger_on_event == topic:
                await self._serve(name)
        self._served_topics.add(topic)

    # -- queues

    async def list_queues(self) -> list[QueueInfo]:
        """See `Transport`."""
        backend = await self.backend()
        return await asyncio.to_thread(backend.list_queues, self._project)

    # -- usage

    async def usage(self, request: UsageRequest) -> UsageReport:
        """See `Transport`."""
        backend = await self.backend()
        return await asyncio.to_thread(backend.usage, self._project, request)

    # -- schedules

    @property
    def schedules(self) -> DirectSchedules:
        """See `Transport`."""
        from polos.timetable import DirectSchedules  # noqa: PLC0415 - as `backend`, below

        return DirectSchedules(self._project, backend=self.backend, serve=self._serve, start=self._start_row)

    # -- sessions

    @property
    def sessions(self) -> DirectSessions:
        """See `Transport`."""
        from polos.remembering import DirectSessions  # noqa: PLC0415 - as `backend`, below

        return DirectSessions(self._project, backend=self.backend, limit_bytes=self._settings.max_value_bytes)

    async def _serve(self, name: str) -> None:
        definition = get_workflow(name)
        if definition is None:
            return
        backend = await self.backend()
        kind = definition.workflow_type
        found = await asyncio.to_thread(
            backend.offers.find_deployment, self._project, name, kind, self._deployment
        )
        if not found.is_served:
            await self._embed_worker(backend)

    async def _start_row(self, row: dict[str, Any]) -> ExecutionHandle:
        backend = await self.backend()
        [run] = await asyncio.to_thread(backend.create_runs, [row])
        return _handle(run)

    async def list_events(
        self, topic: str, *, after: int = 0, limit: int = 100, descending: bool = False
    ) -> list[StreamEvent]:
        """See `Transport`."""
        backend = await self.backend()
        return await backend.feeds.list_events(
            self._project, topic, after=after, limit=limit, descending=descending
        )

    # -- life

    async def start_worker(self) -> None:
        """See `Transport`."""
        backend = await self.backend()
        await asyncio.to_thread(backend.start_worker)

    async def backend(self) -> ClientBackend:
        """Return the connections of this process, connected."""
        backend = self._backend
        if backend is None or not backend.is_connected:
            backend = await asyncio.to_thread(self._connected)
        if self._settings.embedded_worker == "1":
            await asyncio.to_thread(backend.start_worker)
        return backend

    def _connected(self) -> ClientBackend:
        # A program that only defines agents pays for no database driver.
        from polos.backend import ClientBackend  # noqa: PLC0415

        with self._lock:
            self._backend = self._backend or ClientBackend(self._settings)
            self._backend.connect()
            return self._backend

    async def leave_loop(self) -> None:
        """See `Transport`."""
        backend = self._backend
        if backend is not None:
            await backend.leave_loop()

    async def close(self) -> None:
        """See `Transport`; an embedded worker is drained first."""
        if self._is_shared:
            return
        with self._lock:
            backend, self._backend = self._backend, None
        if backend is not None:
            await backend.close()

    def forget(self) -> None:
        """Begin anew, in a child; the backend is told by itself."""
        self._lock = threading.Lock()


async def _tell_why_it_stands(backend: ClientBackend, record: dict[str, Any]) -> bool:
    problem = None
    if record["status"] == "blocked":
        problem = f"Run {record['id']} is blocked until a person decides: {record['error']}"
    elif record["status"] in {"queued", "waiting"}:
        problem = await asyncio.to_thread(backend.offers.why_unserved, record)
    if problem is not None:
        logger.warning(problem)
    return problem is not None


def _stored(value: Any, limit_bytes: int, what: str) -> str | None:
    return None if value is None else serialization.dumps(value, limit_bytes=limit_bytes, what=what)


def _check_same(request: dict[str, Any], run: dict[str, Any]) -> None:
    if request.get("debounce_key") is not None:
        return
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
