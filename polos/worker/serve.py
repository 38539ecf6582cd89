"""The bootstep that makes a Celery worker serve runs, on whatever pool it has."""

from __future__ import annotations

import functools
import gc
import threading
from collections.abc import Callable
from typing import Any, Protocol

from celery import bootsteps, signals
from click import ClickException

from polos.errors import ConfigurationError, ServiceUnavailableError
from polos.journal import schema
from polos.journal.key_check import check_key
from polos.journal.workers import Offer
from polos.routes import Routes
from polos.worker.consuming import consume_routes
from polos.worker.definitions import import_modules, offers
from polos.worker.forks import ForkedHosts
from polos.worker.local_delivery import LocalDelivery
from polos.worker.outages import ConsumerNews
from polos.worker.pool_choice import STOCK_POOLS, path_of, pool_name
from polos.worker.preloading import preload_now
from polos.worker.service import WorkerService
from polos.worker.stock import HOST, StockHost
from polos.worker.tasks import SERVICE

EMBEDDED_DRAIN_SECONDS = 1.5


class Host(Protocol):
    """What serves runs in a worker's pool."""

    def start(self) -> None:
        """Begin to serve, once the pool runs."""

    def drain(self) -> None:
        """Hand everything back; harmless when it is done already."""


class ServeRuns(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Starts to serve once the pool runs, and drains when the pool begins to end."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._host: Host | None = None
        self._news: ConsumerNews | None = None

    def create(self, worker: Any) -> Any:
        """Check what a worker needs, so that what is broken ends it before it takes anything."""
        settings, connections = worker.app.polos
        try:
            import_modules(settings.imports)
            schema.prepare(connections.database)
            check_key(connections.database)
            connections.refuse_wrong(worker.app)
            check_app(worker.app)
            routes = consume_routes(worker, settings.deployment_id)
            self._host = _host(worker, routes)
        except (ConfigurationError, ServiceUnavailableError) as error:
            raise ClickException(str(error)) from error  # celery's command prints it without a traceback
        self._news = ConsumerNews(connections.broker_outage.report)
        return self

    def start(self, worker: Any) -> None:
        """Register with the journal and begin to serve."""
        assert self._host is not None
        if self._news is not None:
            self._news.attach()
        self._host.start()

    def close(self, worker: Any) -> None:
        """Celery's hook: the worker begins to end."""
        if self._news is not None:
            self._news.detach()

    def stop(self, worker: Any) -> None:
        """Nothing is left to do: the pool drained the host when it began to end."""

    def terminate(self, worker: Any) -> None:
        """Nothing is left to do: the pool drained the host when it began to end."""


def check_app(app: Any) -> None:
    """Refuse settings of an app under which doorbells cannot arrive.

    Raises:
        ConfigurationError: Names the setting.
    """
    accepted = {str(kind) for kind in app.conf.accept_content or ()}
    if not accepted & {"json", "application/json"}:
        raise ConfigurationError(
            f"accept_content is {sorted(accepted)!r}: add 'json', the messages of polos are JSON (ids only)"
        )


def _new_service(
    worker: Any,
    routes: set[str],
    *,
    concurrency: int,
    drain_seconds: float,
    deliver_locally: Callable[..., LocalDelivery] | None = None,
) -> WorkerService:
    settings, connections = worker.app.polos
    return WorkerService(
        worker.app,
        connections,
        settings,
        hostname=worker.hostname,
        kind="celery" if getattr(worker.pool, "owns_process", True) else "embedded",
        concurrency=concurrency,
        routes=routes,
        drain_seconds=drain_seconds,
        deliver_locally=deliver_locally,
    )


def _local_delivery(worker: Any) -> Callable[..., LocalDelivery] | None:
    """Return what makes a worker ring for itself, where it may and can."""
    settings, _ = worker.app.polos
    if not settings.local_delivery or not worker.pool.is_polled:
        return None
    return functools.partial(
        LocalDelivery, worker, share=settings.local_delivery, deployment=settings.deployment_id
    )


def _host(worker: Any, routes: set[str]) -> Host:
    """Return what serves runs in the worker's pool.

    Raises:
        ConfigurationError: Its pool cannot.
    """
    grace = worker.app.polos[0].drain_seconds
    new_service = functools.partial(_new_service, worker, routes)
    name = pool_name(worker.pool)
    if name != "prefork" and getattr(worker, "autoscale", None):
        raise ConfigurationError(
            f"--autoscale is for a prefork pool, and this is {name or path_of(type(worker.pool))}: "
            "leave it out, and say with -c how much executes at once"
        )
    match name:
        case "asyncio":
            embedded = not worker.pool.owns_process
            seconds = EMBEDDED_DRAIN_SECONDS if embedded else grace
            made = functools.partial(
                new_service,
                concurrency=worker.pool.limit,
                drain_seconds=seconds,
                deliver_locally=_local_delivery(worker),
            )
            return _AsyncioHost(worker, made)
        case "prefork":
            made = functools.partial(new_service, concurrency=1, drain_seconds=grace)
            return _PreforkHost(worker, made, offered=offers(Routes(worker.app), routes))
        case "threads" | "solo":
            limit = worker.pool.limit
            return _ProcessHost(
                worker, functools.partial(new_service, concurrency=limit, drain_seconds=grace)
            )
    known = ", ".join(["asyncio", *STOCK_POOLS.values()])
    raise ConfigurationError(
        f"polos cannot serve runs on the pool {path_of(type(worker.pool))}; "
        f"use one of {known}: without -P, or with '-P prefork', '-P threads', '-P solo'"
    )


class _AsyncioHost:
    """On the loop of our own pool."""

    def __init__(self, worker: Any, new_service: Callable[[], WorkerService]) -> None:
        self._worker = worker
        self._new_service = new_service
        self._service: WorkerService | None = None
        worker.pool.on_drain.append(self.drain)

    def start(self) -> None:
        pool = self._worker.pool
        self._service = self._new_service()
        self._service.start(pool.loop, pool.run_coroutine)
        setattr(self._worker.app, SERVICE, self._service)

    def drain(self) -> None:
        service, self._service = self._service, None
        if service is not None:
            service.drain()


class _ProcessHost:
    """Beside the threads of a `threads` pool, or the one of `solo`."""

    def __init__(self, worker: Any, new_service: Callable[[], WorkerService]) -> None:
        self._worker = worker
        self._host = StockHost(worker.app, new_service, concurrency=worker.pool.limit)
        _before_end(worker.pool, self.drain, self._cut_off)
        # A solo pool blocks the very thread that would tell it to end.
        signals.worker_shutting_down.connect(self._drain_aside)

    def start(self) -> None:
        self._host.start()
        setattr(self._worker.app, HOST, self._host)

    def drain(self) -> None:
        self._host.drain()

    def _cut_off(self) -> None:
        self._host.drain(grace_seconds=0.0)

    def _drain_aside(self, **_: Any) -> None:
        threading.Thread(target=self.drain, name="polos-drain", daemon=True).start()


class _PreforkHost:
    """In each process of a prefork pool."""

    def __init__(
        self, worker: Any, new_service: Callable[[], WorkerService], *, offered: list[Offer]
    ) -> None:
        if worker.pool_start_method != "fork":
            raise ConfigurationError(
                f"worker_pool_start_method is {worker.pool_start_method!r}: polos needs 'fork' for a prefork "
                "pool; or use the asyncio pool, by leaving -P out"
            )
        if worker.app.polos[0].preload_models == "1":
            preload_now(offered)  # before the first fork: LiteLLM's 165 MB are shared by all processes then,
            gc.freeze()  # as long as no garbage collection writes to them
        self._hosts = ForkedHosts(worker.app, lambda: StockHost(worker.app, new_service, concurrency=1))
        _before_end(worker.pool, self.drain, self.drain)
        signals.worker_shutting_down.connect(self._on_shutting_down)

    def start(self) -> None:
        """Do nothing: each process began by itself when it was forked."""

    def drain(self) -> None:
        self._hosts.drain()

    def _on_shutting_down(self, **_: Any) -> None:
        self.drain()


def _before_end(pool: Any, drain: Callable[[], None], cut_off: Callable[[], None]) -> None:
    """Have a stock pool drained when it is closed, and cut off when it is stopped without."""

    def first(function: Callable[[], None], then: Callable[[], None]) -> Callable[[], None]:
        def both() -> None:
            function()
            then()

        return both

    pool.on_close = first(drain, pool.on_close)
    pool.on_stop = first(cut_off, pool.on_stop)
    pool.on_terminate = first(cut_off, pool.on_terminate)
