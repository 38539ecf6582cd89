"""A worker in a thread of a script, for programs that start none of their own."""

from __future__ import annotations

import os
import threading
import time

from celery import Celery

from polos.connections import Connections, installed_app
from polos.dispatch import quietly
from polos.routes import DEFAULT_ROUTE, Routes, queue_name
from polos.settings import Settings
from polos.worker.app import build_app
from polos.worker.consuming import defined_routes
from polos.worker.service import WorkerService
from polos.worker.tasks import SERVICE
from polos.worker.thread_worker import WorkerThread

REGISTER_SECONDS = 15.0
LOOK_AGAIN_SECONDS = 0.01


class EmbeddedWorker:
    """Serves what this process defines. One at a time per process; other clients of it share the worker."""

    def __init__(self, settings: Settings, connections: Connections | None = None) -> None:
        """Take the settings, and the connections of the client whose program this is."""
        self._settings = settings
        self._beside = connections
        self._lock = threading.Lock()
        self._app: Celery | None = None
        self._thread: WorkerThread | None = None

    def start(self) -> None:
        """Serve, including definitions that are new since the last call.

        While the broker does not answer, the worker keeps trying in the background; what this process defines
        is offered, and its triggers and schedules count, from now on all the same.

        Raises:
            ServiceUnavailableError: The worker could not start; the cause is chained.
        """
        with self._lock:
            if is_new := self._thread is None or not self._thread.is_alive:
                self._start()
            self._wait_until_registered()
            if not is_new and self._service is not None:
                self._service.offer_new_definitions()

    def stop(self) -> None:
        """Hand everything back and end."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                thread.stop(timeout_seconds=5.0)
            if self._app is not None and self._app is not installed_app():
                _, connections = self._app.polos
                connections.close()
            self._app = None

    def _queues(self, app: Celery) -> list[str]:
        routes = defined_routes(Routes(app)) | {DEFAULT_ROUTE}
        return [queue_name(route, self._settings.deployment_id) for route in sorted(routes)]

    @property
    def _service(self) -> WorkerService | None:
        return getattr(self._app, SERVICE, None)

    @property
    def _is_registered(self) -> bool:
        return self._service is not None and self._service.runtime is not None

    def _wait_until_registered(self) -> None:
        deadline = time.monotonic() + REGISTER_SECONDS
        while not self._is_registered and self._thread is not None and self._thread.is_alive:
            if time.monotonic() > deadline:
                return  # the database keeps it waiting; it registers when that answers
            time.sleep(LOOK_AGAIN_SECONDS)

    def _start(self) -> None:
        own = installed_app()
        self._app = own or build_app(self._settings, beside=self._beside)
        self._thread = WorkerThread(
            self._app,
            concurrency=self._settings.embedded_concurrency,
            queues=None if own is None else self._queues(own),  # tasks of the program are not ours to execute
            name=f"polos-embedded-{os.getpid()}",
        )
        if quietly(self._reach_broker) is None:
            self._thread.start(timeout_seconds=15.0)
        else:
            self._thread.launch()  # runs are accepted meanwhile; they start when the broker is back

    def _reach_broker(self) -> None:
        assert self._app is not None
        with self._app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
