"""The operations of a client, asked of a server."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from polos import serialization
from polos.errors import ConfigurationError, IdempotencyError, InputError, PolosError
from polos.event_data import ends_run
from polos.events import EventData, StreamEvent
from polos.handles import ExecutionHandle
from polos.queues import QueueInfo
from polos.remote.connection import PATIENCE_SECONDS, ServerConnection
from polos.remote.refusals import data_of
from polos.remote.schedules import RemoteSchedules
from polos.remote.sessions import RemoteSessions
from polos.remote.streams import subscribed
from polos.transport import ForkRequest, RunRequest, ServerAddress
from polos.usage import UsageReport, UsageRequest

logger = logging.getLogger("polos.client")

FIRST_WAIT_SECONDS = 1.0  # after which a client that waits says that no live worker serves its run
WAIT_SECONDS = 25.0  # of one request, which proxies let pass
WAIT_PATIENCE_SECONDS = 60.0  # with a server that is away while a run is waited for
BELONGING = ("session_id", "user_id", "deployment_id")
HANDLE_FIELDS = (
    "workflow_id",
    "created_at",
    "root_workflow_id",
    "root_execution_id",
    "session_id",
    "user_id",
)


class RemoteTransport:
    """Runs of one project, over HTTP. See `Transport` for what each method does.

    Args:
        address: Of the server.
        project_id: None for the one the API key is for.
        deployment_id: Version of the code that shall run what it starts; None means the newest.
        limit_bytes: Largest payload or state.
    """

    def __init__(
        self, address: ServerAddress, *, project_id: str | None, deployment_id: str | None, limit_bytes: int
    ) -> None:
        self._server = ServerConnection(address, project_id=project_id)
        self._deployment = deployment_id
        self._limit_bytes = limit_bytes

    # -- starting

    async def start_runs(self, requests: Sequence[RunRequest]) -> list[ExecutionHandle]:
        """See `Transport`; each run has a key, so that none is started twice however often that is asked."""
        keyed = [self._keyed(request) for request in requests]
        if len(keyed) == 1:
            return [await self._start_one(keyed[0])]
        response = await self._server.ask("POST", "/workflows/batch_run", body=_batch(keyed))
        started = data_of(_there(response), self._server.url, key="executions")["executions"]
        return [_handle(one) for one in started]

    async def _start_one(self, request: RunRequest) -> ExecutionHandle:
        path = f"/workflows/{quote(request.workflow_id, safe='')}/run"
        response = await self._server.ask("POST", path, body=_wanted(request))
        return _handle(data_of(_there(response), self._server.url, key="execution_id"))

    def _keyed(self, request: RunRequest) -> RunRequest:
        for what, value in (("payload", request.payload), ("initial state", request.initial_state)):
            serialization.dumps(
                value, limit_bytes=self._limit_bytes, what=f"{what} of {request.workflow_id!r}"
            )
        return replace(
            request,
            idempotency_key=request.idempotency_key
            or (str(uuid.uuid4()) if request.debounce_key is None else None),
            deployment_id=request.deployment_id or self._deployment,
        )

    # -- runs that were started

    async def read_run(self, execution_id: str) -> dict[str, Any] | None:
        """See `Transport`."""
        return await self._read(execution_id)

    async def _read(
        self, execution_id: str, *, wait_seconds: float = 0.0, patience_seconds: float = PATIENCE_SECONDS
    ) -> dict[str, Any] | None:
        if not _is_possible(execution_id):
            return None
        response = await self._server.ask(
            "GET",
            _path(execution_id),
            params={"wait": wait_seconds} if wait_seconds else None,
            wait_seconds=wait_seconds,
            patience_seconds=patience_seconds,
        )
        if response is None:
            return None
        record: dict[str, Any] = data_of(response, self._server.url, key="completed_at")
        return record

    async def ended_run(self, execution_id: str) -> dict[str, Any] | None:
        """See `Transport`; the server answers when the run has ended."""
        told, wait_seconds = False, FIRST_WAIT_SECONDS
        while True:
            record = await self._read(
                execution_id, wait_seconds=wait_seconds, patience_seconds=WAIT_PATIENCE_SECONDS
            )
            if record is None or record["completed_at"] is not None:
                return record
            told = told or await self._tell_why_it_stands(record)
            wait_seconds = WAIT_SECONDS

    async def _tell_why_it_stands(self, record: dict[str, Any]) -> bool:
        problem = None
        if record["status"] == "blocked":
            problem = f"Run {record['id']} is blocked until a person decides: {record['error']}"
        elif record["status"] in {"queued", "waiting"} and not await self._is_served(record):
            problem = (
                f"No live worker serves {record['workflow_id']!r} of deployment {record['deployment_id']!r}: "
                f"run {record['id']} waits. Start one where the server is, with 'polos worker MODULE'."
            )
        if problem is not None:
            logger.warning(problem)
        return problem is not None

    async def _is_served(self, record: dict[str, Any]) -> bool:
        wanted = {name: record[name] for name in ("deployment_id", "workflow_id")}
        try:
            response = await self._server.ask("GET", "/workers/status", params=wanted, patience_seconds=0)
        except (PolosError, ValueError) as error:
            logger.debug("Who serves run %s is unknown: %s", record["id"], error)  # it was only for a message
            return True
        return response is None or bool(response.json().get("has_workers", True))

    async def cancel_run(self, execution_id: str) -> bool:
        """See `Transport`."""
        record = await self.read_run(execution_id)
        if record is None or record["completed_at"] is not None:
            return False
        try:
            response = await self._server.ask("POST", f"{_path(execution_id)}/cancel", body={})
        except ValueError:  # it has ended meanwhile, perhaps by an earlier attempt whose answer was lost
            record = await self.read_run(execution_id)
            return record is not None and record["status"] == "cancelled"
        return response is not None

    async def retry_run(self, execution_id: str) -> None:
        """See `Transport`."""
        response = None
        if _is_possible(execution_id):
            path = f"{_path(execution_id)}/retry"
            response = await self._server.ask("POST", path, body={}, is_repeatable=False)
        if response is None:
            raise _no_run(execution_id)

    async def fork_run(self, request: ForkRequest) -> ExecutionHandle:
        """See `Transport`; it has a key, so that nothing is started twice however often it is asked for."""
        keyed = replace(
            request,
            idempotency_key=request.idempotency_key or str(uuid.uuid4()),
            deployment_id=request.deployment_id or self._deployment,
        )
        body = {name: value for name, value in vars(keyed).items() if value is not None}
        path = f"{_path(body.pop('execution_id'))}/fork"
        response = (
            await self._server.ask("POST", path, body=body) if _is_possible(keyed.execution_id) else None
        )
        if response is None:
            raise _no_run(request.execution_id)
        return _handle(data_of(response, self._server.url, key="execution_id"))

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
        body = {"step_key": step_key, "data": data if isinstance(data, dict) else {"value": data}}
        if run_id is not None:
            body["suspended_execution_id"] = run_id
        if answered_by is not None:
            body["answered_by"] = answered_by
        path = f"{_path(execution_id)}/resume"
        if await self.read_run(execution_id) is None:
            raise InputError(f"There is no run {execution_id!r} in this project")
        try:
            response = await self._server.ask("POST", path, body=body)
        except IdempotencyError:  # a conflict: nothing waits (any more)
            return False
        return response is not None

    # -- events

    def follow(
        self, run_id: str, *, after: str | int | None = None, live: bool = False
    ) -> AsyncIterator[StreamEvent]:
        """See `Transport`."""
        params: dict[str, Any] = {"workflow_run_id": run_id}
        if live:
            params["live"] = "true"
        elif after is not None:
            params["last_sequence_id" if isinstance(after, int) else "last_event_id"] = after
        if not _is_possible(run_id):
            raise _no_run(run_id)
        return subscribed(
            self._server,
            params,
            is_last=lambda event: ends_run(event.event_type, event.data, run_id),
            missing=lambda: _no_run(run_id),
        )

    def follow_topic(
        self, topic: str, *, after: int | None = None, after_time: datetime | None = None
    ) -> AsyncIterator[StreamEvent]:
        """See `Transport`."""
        params: dict[str, Any] = {"topic": topic}
        if after is not None:
            params["last_sequence_id"] = after
        elif after_time is not None:
            moment = after_time if after_time.tzinfo else after_time.replace(tzinfo=UTC)
            params["last_timestamp"] = moment.isoformat()
        return subscribed(
            self._server,
            params,
            is_last=lambda event: False,
            missing=lambda: ValueError(f"There is no topic {topic!r} in this project"),
        )

    async def publish_events(
        self,
        topic: str,
        events: list[EventData],
        *,
        execution_id: str | None = None,
        root_execution_id: str | None = None,
    ) -> list[int]:
        """See `Transport`; not repeated unless it certainly never arrived."""
        body = {
            "topic": topic,
            "events": [event.model_dump(mode="json") for event in events],
            "execution_id": execution_id,
            "root_execution_id": root_execution_id,
        }
        response = await self._server.ask("POST", "/events/publish", body=body, is_repeatable=False)
        numbers: list[int] = data_of(_there(response), self._server.url, key="sequence_ids")["sequence_ids"]
        return numbers

    async def list_events(
        self, topic: str, *, after: int = 0, limit: int = 100, descending: bool = False
    ) -> list[StreamEvent]:
        """See `Transport`."""
        params = {
            "topic": topic,
            "last_sequence_id": after,
            "limit": limit,
            "sort": "desc" if descending else "asc",
        }
        response = await self._server.ask("GET", "/events", params=params)
        found = data_of(_there(response), self._server.url, key="events")["events"]
        return [StreamEvent.model_validate(event) for event in found]

    # -- queues

    async def list_queues(self) -> list[QueueInfo]:
        """See `Transport`."""
        response = await self._server.ask("GET", "/queues")
        found = data_of(_there(response), self._server.url, key="queues")["queues"]
        return [QueueInfo.model_validate(one) for one in found]

    # -- usage

    async def usage(self, request: UsageRequest) -> UsageReport:
        """See `Transport`."""
        wanted = {
            "by": request.by,
            "since": request.since and request.since.isoformat(),
            "until": request.until and request.until.isoformat(),
            "agent": request.agent,
            "model": request.model,
            "session": request.session,
            "execution_id": request.run_id,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        response = await self._server.ask("GET", "/usage", params=given)
        return UsageReport.model_validate(data_of(_there(response), self._server.url, key="total"))

    # -- schedules

    @property
    def schedules(self) -> RemoteSchedules:
        """See `Transport`."""
        return RemoteSchedules(self._server)

    # -- sessions

    @property
    def sessions(self) -> RemoteSessions:
        """See `Transport`."""
        return RemoteSessions(self._server)

    # -- life

    async def start_worker(self) -> None:
        """Refuse: workers are where the server is.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(
            f"A client of the server at {self._server.url} has no worker of its own; start one where the "
            "server is, with 'polos worker MODULE', or leave api_url out to go to database and broker"
        )

    async def leave_loop(self) -> None:
        """See `Transport`."""
        await self._server.leave_loop()

    async def close(self) -> None:
        """See `Transport`; connections of other loops end with their loops."""
        await self._server.leave_loop()


def _path(execution_id: str) -> str:
    return f"/executions/{quote(execution_id, safe='')}"


def _is_possible(execution_id: str) -> bool:
    return bool(execution_id) and serialization.is_storable(execution_id)


def _no_run(execution_id: str) -> ValueError:
    return ValueError(f"There is no run {execution_id!r} in this project")


def _batch(requests: Sequence[RunRequest]) -> dict[str, Any]:
    """Return the body that starts several runs: what they have in common is said once."""
    items = [{"workflow_id": one.workflow_id, **_wanted(one)} for one in requests]
    common = {name: items[0].get(name) for name in BELONGING}
    shared = {
        name: value
        for name, value in common.items()
        if value is not None and all(item.get(name) == value for item in items)
    }
    for item in items:
        for name in shared:
            item.pop(name, None)
    return {"workflows": items, **shared}


def _wanted(request: RunRequest) -> dict[str, Any]:
    """Return the body that starts a run; what is None is left out."""
    fields = {name: value for name, value in vars(request).items() if name != "workflow_id"}
    return {name: value for name, value in fields.items() if value is not None}


def _there(response: Any) -> Any:
    if response is None:
        raise ConfigurationError("The server does not know this path; upgrade it to this version of polos")
    return response


def _handle(started: Mapping[str, Any]) -> ExecutionHandle:
    return ExecutionHandle(id=started["execution_id"], **{name: started.get(name) for name in HANDLE_FIELDS})
