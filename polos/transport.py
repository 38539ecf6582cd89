"""What a client needs of the way it reaches its runs, and which way that is.

There are two: straight to journal and broker, and HTTP to a `polos server`.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from polos.errors import ConfigurationError
from polos.events import EventClient, EventData, StreamEvent
from polos.handles import ExecutionHandle
from polos.queues import QueueInfo
from polos.schedules import ScheduleClient
from polos.sessions import Sessions
from polos.settings import hide_password
from polos.usage import UsageReport, UsageRequest

logger = logging.getLogger("polos.client")

DEFAULT_API_URL = "http://localhost:8080"
TRANSPORTS = ("auto", "direct", "http")


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A run to start, as its caller asks for it. `payload` and `initial_state` are plain JSON data."""

    workflow_id: str
    payload: Any = None
    initial_state: Any = None
    queue_name: str | None = None
    queue_concurrency_limit: int | None = None
    concurrency_key: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    run_timeout_seconds: float | None = None
    idempotency_key: str | None = None
    priority: int | None = None
    delay_seconds: float | None = None
    debounce_key: str | None = None
    debounce_seconds: float | None = None
    deployment_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class ForkRequest:
    """A run to start from a copy of another one's journal; see `PolosClient.fork`. Values are JSON data."""

    execution_id: str
    from_step: str | None = None
    input: Any = None
    patch: Mapping[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    user_id: str | None = None
    idempotency_key: str | None = None
    deployment_id: str | None = None


class Transport(EventClient, ScheduleClient, Protocol):
    """The operations of a client. All coroutines may be called from any event loop of the process."""

    async def start_runs(self, requests: Sequence[RunRequest]) -> list[ExecutionHandle]:
        """Start runs, all or none; those whose idempotency key is known are returned as they were started.

        Raises:
            ServiceUnavailableError: The database or server does not answer; nothing was started.
            IdempotencyError: A key was used with another workflow or input.
        """

    async def read_run(self, execution_id: str) -> dict[str, Any] | None:
        """Return the record of a run, None when there is none in the client's project."""

    async def ended_run(self, execution_id: str) -> dict[str, Any] | None:
        """Return the record of a run once it has ended, None when there is no such run.

        Logs, once, why a run that nobody executes stands.
        """

    async def cancel_run(self, execution_id: str) -> bool:
        """Cancel a run and all it started; False when it has ended or does not exist."""

    async def retry_run(self, execution_id: str) -> None:
        """Let a failed or cancelled root go on from its journal.

        Raises:
            ValueError: There is no such run, it is no root, or it has neither failed nor been cancelled.
        """

    async def fork_run(self, request: ForkRequest) -> ExecutionHandle:
        """Start a run from a copy of another one's journal.

        Raises:
            ValueError: There is no such run or step, or a patched step is not taken over.
        """

    async def resume_run(
        self,
        execution_id: str,
        step_key: str,
        data: Any,
        *,
        run_id: str | None = None,
        answered_by: str | None = None,
    ) -> bool:
        """Answer what waits under a key in a run's tree; False when nothing does (any more).

        Raises:
            AnswerError: The answer does not fit the form of the question.
            ValueError: There is no such run, or the data is too large.
        """

    async def list_events(
        self, topic: str, *, after: int = 0, limit: int = 100, descending: bool = False
    ) -> list[StreamEvent]:
        """Return events that are recorded."""

    async def list_queues(self) -> list[QueueInfo]:
        """Return the queues that have limits, or runs that wait to be admitted."""

    async def usage(self, request: UsageRequest) -> UsageReport:
        """Return what model calls used and cost."""

    @property
    def sessions(self) -> Sessions:
        """What agents remember of the sessions of its project."""

    async def start_worker(self) -> None:
        """Serve this process's definitions from a thread of it."""

    async def leave_loop(self) -> None:
        """Give up what belongs to the running event loop."""

    async def close(self) -> None:
        """Give everything up; a later call connects again."""


class Feeds(Protocol):
    """Events below a direct client; see `Transport` for what each method does."""

    def follow(
        self, project: str, run_id: str, *, after: str | int | None = None, live: bool = False
    ) -> AsyncIterator[StreamEvent]:
        """Return the events of a run tree until the run's own end."""

    def follow_topic(
        self, project: str, topic: str, *, after: int | None = None, after_time: datetime | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Return the events of a topic, for ever."""

    async def publish_events(
        self,
        project: str,
        topic: str,
        events: list[EventData],
        *,
        execution_id: str | None = None,
        root_execution_id: str | None = None,
    ) -> list[int]:
        """Publish events, all or none; return their sequence ids."""

    async def list_events(
        self, project: str, topic: str, *, after: int = 0, limit: int = 100, descending: bool = False
    ) -> list[StreamEvent]:
        """Return events that are recorded."""


@dataclass(frozen=True)
class ServerAddress:
    """Where the server of the API is, and what it is told. `api_key` is None in local mode."""

    url: str
    api_key: str | None
    is_local: bool

    def __repr__(self) -> str:
        return f"ServerAddress({hide_password(self.url)!r})"


def server_address(
    api_url: str | None, api_key: str | None, environment: Mapping[str, str]
) -> ServerAddress | None:
    """Return the server that a client shall use, None when it shall go straight to journal and broker.

    HTTP is chosen by a URL that is not of this machine, by a URL together with a key, or by
    ``POLOS_TRANSPORT=http``; ``POLOS_LOCAL_MODE=true`` makes a key unnecessary on this machine. Programs that
    name a local URL and no key go direct: nothing has to listen there.

    Raises:
        ConfigurationError: The URL is none, a key is needed, or POLOS_TRANSPORT is unknown.
    """
    wanted = environment.get("POLOS_TRANSPORT", "").strip().lower() or "auto"
    if wanted not in TRANSPORTS:
        raise ConfigurationError(
            f"POLOS_TRANSPORT={wanted!r} cannot be used: must be one of {', '.join(TRANSPORTS)}"
        )
    url = api_url or environment.get("POLOS_API_URL", "").strip()
    if wanted == "direct" or (wanted == "auto" and not url):
        return None
    url = checked_url(url or DEFAULT_API_URL)
    key = api_key or environment.get("POLOS_API_KEY", "").strip() or None
    is_local = _is_local_mode(url, environment)
    if wanted == "auto" and is_loopback(url) and (key is None or is_local):
        return None
    if key is None and not is_local:
        raise ConfigurationError(
            f"The server at {hide_password(url)} needs an API key: pass api_key=, or set POLOS_API_KEY; "
            "'polos keys create NAME --project PROJECT' on the server's machine makes one"
        )
    return ServerAddress(url, None if is_local else key, is_local)


def checked_url(url: str) -> str:
    """Return a server's URL without a slash at its end.

    Raises:
        ConfigurationError: It is not an HTTP URL.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        usable = False
    if not usable:
        raise ConfigurationError(
            f"api_url={hide_password(url)!r} is not the URL of a server; write 'https://host' or 'http://host:8080'"
        )
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Return whether a URL names this machine."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _is_local_mode(url: str, environment: Mapping[str, str]) -> bool:
    if environment.get("POLOS_LOCAL_MODE", "").strip().lower() != "true":
        return False
    if not is_loopback(url):
        logger.warning("POLOS_LOCAL_MODE is ignored: %s is not on this machine", hide_password(url))
        return False
    return True
