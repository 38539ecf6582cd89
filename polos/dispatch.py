"""Doorbells: Celery messages that say 'look at this run'. They carry ids, never data.

A doorbell may be lost, late or doubled without harm: the journal is the truth and the sweeper rings again.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from celery import Celery
from kombu.exceptions import OperationalError

from polos.routes import DEFAULT_ROUTE, RUN_TASK, TURN_TASK, declared_queue, direct_queue, queue_name
from polos.settings import DEFAULT_DEPLOYMENT

logger = logging.getLogger("polos.dispatch")

MAX_WAITING_DOORBELLS = 10_000  # while the broker is away; more are left to the sweeper
CONNECT_TIMEOUT_SECONDS = 2.0
RECONNECT = {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2}  # the sweeper rings again
SOCKET_TIMEOUT_SECONDS = 5.0  # a broker that stands still is noticed; its pops return each second
HEALTH_SECONDS = 10
AGAIN_WITHIN_SECONDS = 0.5  # a failure this quick is worth a second attempt
_ERRORS = (OperationalError, OSError)
Report = Callable[[BaseException | None], None]


@dataclass(frozen=True)
class Doorbell:
    """One message to ring.

    Attributes:
        label: What Flower shows, such as ``weather-agent`` or ``weather-agent.turn``.
        route: The fleet that serves it.
        deployment: The version of the code it is pinned to.
        begun: Part of a run that is under way; rung on a queue of its own, so that it does not stand behind a
            backlog of new runs.
        hostname: Celery node name of the one worker to ring, None for any.
    """

    run_id: str
    label: str
    route: str = DEFAULT_ROUTE
    deployment: str = DEFAULT_DEPLOYMENT
    step: str | None = None
    begun: bool = False
    hostname: str | None = None

    @property
    def task(self) -> str:
        """Name of the Celery task it starts."""
        return RUN_TASK if self.step is None else TURN_TASK

    @property
    def args(self) -> list[str]:
        """Arguments of the task: ids only."""
        return [self.run_id] if self.step is None else [self.run_id, self.step]


class Dispatcher(Protocol):
    """Rings doorbells without making the caller wait."""

    def ring(self, *doorbells: Doorbell) -> None:
        """Ring soon; a doorbell that cannot be sent is left to the sweeper."""


def broker_settings(broker_url: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the Celery settings that make an unreachable broker fail fast instead of hanging a caller."""
    options = {**RECONNECT, **(options or {})}
    if urlsplit(broker_url).scheme.startswith(("redis", "sentinel")):
        timeouts = {
            "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "socket_timeout": SOCKET_TIMEOUT_SECONDS,
            "health_check_interval": HEALTH_SECONDS,
        }
        options = {**timeouts, **options}
    return {
        "broker_url": broker_url,
        # Explicitly, for CELERY_BROKER_URL comes before `broker_url`.
        "broker_read_url": broker_url,
        "broker_write_url": broker_url,
        "broker_connection_timeout": CONNECT_TIMEOUT_SECONDS,
        "broker_transport_options": dict(options or {}),
    }


class Sender:
    """Publishes doorbells through a Celery app, from one thread at a time."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send(self, doorbells: Sequence[Doorbell]) -> None:
        """Publish all of them on one connection.

        Raises:
            kombu OperationalError or OSError: The broker does not answer; what was not sent is not sent.
        """
        began = time.monotonic()
        try:
            self._send(doorbells)
        except _ERRORS:
            if time.monotonic() - began > AGAIN_WITHIN_SECONDS:
                raise
            self._send(doorbells)  # that connection may have died idle; what is rung twice is harmless

    def _send(self, doorbells: Sequence[Doorbell]) -> None:
        with self._app.producer_or_acquire() as found:
            producer = _Uncompressed(found)
            for doorbell in doorbells:
                self._publish(producer, doorbell)

    def _publish(self, producer: Any, doorbell: Doorbell) -> None:
        queue = self._queue(doorbell)
        self._app.send_task(
            doorbell.task,
            doorbell.args,
            producer=producer,
            shadow=doorbell.label,
            ignore_result=True,
            retry=False,
            serializer="json",
            queue=queue,
            # To the queue itself, whatever exchange `task_routes` may name for all tasks.
            exchange="",
            routing_key=queue.name,
        )

    def _queue(self, doorbell: Doorbell) -> Any:
        if doorbell.hostname is not None:
            return direct_queue(doorbell.hostname)
        name = queue_name(doorbell.route, doorbell.deployment, begun=doorbell.begun)
        return declared_queue(self._app, name)


class _Uncompressed:
    """A producer that leaves messages as they are, whatever `task_compression` of the app says.

    Workers unpack no doorbell, for a small one may be made to fill their memory.
    """

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, body: Any, **options: Any) -> Any:
        """Publish without compression."""
        return self._producer.publish(body, **{**options, "compression": None})


class DispatchThread:
    """Rings from a thread of its own: publishing blocks, and an event loop must not."""

    def __init__(self, sender: Sender, report: Report) -> None:
        """Start the thread; `report` is told of each attempt that failed, and by None of what succeeded."""
        self._sender = sender
        self._report = report
        self._waiting: queue.Queue[Doorbell | None] = queue.Queue(MAX_WAITING_DOORBELLS)
        self._thread = threading.Thread(target=self._run, name="polos-dispatch", daemon=True)
        self._thread.start()

    def ring(self, *doorbells: Doorbell) -> None:
        """Ring soon; a doorbell that cannot be sent is left to the sweeper."""
        for doorbell in doorbells:
            try:
                self._waiting.put_nowait(doorbell)
            except queue.Full:
                return  # the sweeper rings what the journal promises

    def stop(self, *, timeout_seconds: float = 2.0) -> None:
        """Send what is waiting, then end the thread."""
        try:
            self._waiting.put(None, timeout=timeout_seconds)
        except queue.Full:
            return  # the broker is away; the sweeper of another process rings these
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, ends = self._with_more(first)
            self._send(batch)
            if ends:
                return

    def _with_more(self, first: Doorbell) -> tuple[list[Doorbell], bool]:
        batch = [first]
        while len(batch) < 100:
            try:
                more = self._waiting.get_nowait()
            except queue.Empty:
                break
            if more is None:
                return batch, True
            batch.append(more)
        return batch, False

    def _send(self, batch: Sequence[Doorbell]) -> None:
        try:
            self._sender.send(batch)
        except _ERRORS as error:
            self._report(error)
        except Exception:  # must not end the thread: nothing of this process would ring again
            logger.exception("%d doorbells could not be sent; the sweeper rings them again", len(batch))
        else:
            self._report(None)


def quietly(send: Callable[[], None]) -> Exception | None:
    """Run `send`; return the error when the broker does not answer."""
    try:
        send()
    except _ERRORS as error:
        return error
    return None
