"""The Celery app of polos, for `celery -A polos worker`, and what makes its workers serve runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps
from celery.utils.nodenames import worker_direct
from click import ClickException
from kombu import Queue

from polos.connections import Connections, configured_app
from polos.dispatch import DEFAULT_ROUTE, next_queue, route_of
from polos.errors import ConfigurationError, ServiceUnavailableError
from polos.journal import schema
from polos.settings import Settings
from polos.worker.definitions import import_modules
from polos.worker.intake import IntakeStep
from polos.worker.pool import AsyncioPool
from polos.worker.service import WorkerService
from polos.worker.tasks import SERVICE, add_tasks

POOL = "polos.worker.pool:AsyncioPool"
DEFAULT_CONCURRENCY = 100  # what executes at once in a process; waiting runs do not count
EMBEDDED_DRAIN_SECONDS = 1.5

DEFAULTS: dict[str, Any] = {
    "worker_pool": POOL,
    "worker_concurrency": DEFAULT_CONCURRENCY,
    "task_default_queue": DEFAULT_ROUTE,
    "task_create_missing_queues": True,
    "worker_direct": True,  # a doorbell popped by a worker that cannot serve it goes to one that can
    "worker_prefetch_multiplier": 1,
    "worker_send_task_events": True,  # Flower
    "task_send_sent_event": False,
    "broker_connection_retry_on_startup": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_enable_prefetch_count_reduction": False,  # residents are not a reason to take less
    "worker_hijack_root_logger": True,
    "task_ignore_result": True,
}


def command_app() -> Celery:
    """Return the app for `celery -A polos …`; modules of the working directory can be imported, as usual."""
    if (folder := str(Path.cwd())) not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    try:
        return build_app()
    except (ConfigurationError, ServiceUnavailableError) as error:
        raise SystemExit(f"Error: {error}") from error  # what the command should print, not a traceback


def build_app(settings: Settings | None = None) -> Celery:
    """Return the Celery app of this folder: our defaults, its celeryconfig.py, its brokers."""
    settings = settings or Settings.from_environment()
    app, connections = configured_app(settings, DEFAULTS)
    install(app, settings=settings, connections=connections)
    return app


def install(app: Celery, *, settings: Settings, connections: Connections) -> None:
    """Make workers of `app` serve runs."""
    app.polos = (settings, connections)
    if not app.conf.task_queues:
        app.conf.task_queues = [Queue(DEFAULT_ROUTE), Queue(next_queue(DEFAULT_ROUTE))]
    add_tasks(app)
    app.steps["worker"].add(ServeRuns)
    app.steps["consumer"].add(IntakeStep)


class ServeRuns(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Starts our service once the pool runs, and drains it when the pool begins to end."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._service: WorkerService | None = None

    def create(self, worker: Any) -> Any:
        """Check definitions and journal, so that what is broken ends the worker before it takes anything."""
        settings, connections = worker.app.polos
        try:
            import_modules(settings.imports)
            schema.prepare(connections.database)
        except (ConfigurationError, ServiceUnavailableError) as error:
            raise ClickException(str(error)) from error  # celery's command prints it without a traceback
        return self

    def start(self, worker: Any) -> None:
        """Register with the journal and begin to serve."""
        pool = worker.pool
        if not isinstance(pool, AsyncioPool):
            raise ConfigurationError(
                f"polos needs its asyncio pool, not {type(pool).__module__}.{type(pool).__qualname__}; "
                "start the worker without -P"
            )
        settings, connections = worker.app.polos
        embedded = not pool.owns_process
        self._service = WorkerService(
            worker.app,
            connections,
            settings,
            hostname=worker.hostname,
            kind="embedded" if embedded else "celery",
            concurrency=worker.concurrency,
            routes=_routes(worker),
            drain_seconds=EMBEDDED_DRAIN_SECONDS if embedded else settings.drain_seconds,
        )
        self._service.start(pool.loop, pool.run_coroutine)
        setattr(worker.app, SERVICE, self._service)
        pool.on_drain.append(self._drain)

    def stop(self, worker: Any) -> None:
        """Nothing is left to do: the pool drained the service when it began to end."""

    def terminate(self, worker: Any) -> None:
        """Nothing is left to do: the pool drained the service when it began to end."""

    def _drain(self) -> None:
        service, self._service = self._service, None
        if service is not None:
            service.drain()


def _routes(worker: Any) -> set[str]:
    """Return the routes whose queues a worker consumes."""
    own = worker_direct(worker.hostname).name
    return {route_of(name) for name in worker.app.amqp.queues.consume_from if name != own}
