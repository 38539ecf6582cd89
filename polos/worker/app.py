"""The Celery app of polos, for `celery -A polos worker`, and what makes its workers serve runs."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import AlwaysEagerIgnored

from polos.connections import Connections, configured_app, connections_of, remember_installed
from polos.errors import ConfigurationError, ServiceUnavailableError
from polos.routes import DEFAULT_ROUTE
from polos.settings import Settings
from polos.worker import pool_choice
from polos.worker.event_batches import EventBatchesStep
from polos.worker.intake import IntakeStep
from polos.worker.logs import WorkerLogs
from polos.worker.outages import ConnectedStep
from polos.worker.serve import ServeRuns
from polos.worker.tasks import add_tasks
from polos.worker.unreadable import UnreadableStep

POOL = "polos.worker.pool:AsyncioPool"

DEFAULTS: dict[str, Any] = {
    "worker_pool": POOL,
    "task_default_queue": DEFAULT_ROUTE,
    "task_create_missing_queues": True,
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


def build_app(settings: Settings | None = None, *, beside: Connections | None = None) -> Celery:
    """Return the Celery app of this folder: our defaults, its celeryconfig.py, its brokers."""
    settings = settings or Settings.from_environment()
    app, connections = configured_app(settings, DEFAULTS, beside=beside)
    _serve_runs(app, settings, connections)
    return app


def install(app: Celery, *, settings: Settings | None = None) -> None:
    """Make a Celery app of your own serve runs beside its tasks; call it once, when the app is configured.

    Its workers then serve the agents, tools and workflows they import, beside the app's own queues and on
    whatever pool they have, and the clients of this process ring through it. Its settings stay as they are:
    what our two tasks need is set on them. An app without a broker gets the embedded one.

    Args:
        app: Its ``broker_url`` must be set, unless the broker shall be the embedded one.
        settings: None reads them from the environment.

    Raises:
        ConfigurationError: polos is installed in it already, or POLOS_BROKER_URL names another broker.
    """
    if getattr(app, "polos", None) is not None:
        raise ConfigurationError(f"polos is installed in the Celery app {app.main!r} already; do it once")
    settings = settings or Settings.from_environment()
    _serve_runs(app, settings, connections_of(app, settings))
    # Doorbells are sent all the same: `task_always_eager` is for tasks of the app.
    warnings.filterwarnings("ignore", category=AlwaysEagerIgnored, module=r"polos\.dispatch")
    remember_installed(app)


def _serve_runs(app: Celery, settings: Settings, connections: Connections) -> None:
    app.polos = (settings, connections)
    add_tasks(app)
    WorkerLogs(settings.log_format).connect()
    pool_choice.connect(app)
    app.steps["worker"].add(ServeRuns)
    app.steps["consumer"].update({IntakeStep, EventBatchesStep, ConnectedStep, UnreadableStep})
