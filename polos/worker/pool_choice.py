"""What a worker runs its tasks with when its command line says nothing, or says it in Celery's own way."""

from __future__ import annotations

from typing import Any

import click
from celery import concurrency, signals
from celery.exceptions import ImproperlyConfigured
from click.core import ParameterSource

from polos.worker.pool import AsyncioPool

DEFAULT_CONCURRENCY = 100  # bodies on the asyncio pool; waiting runs do not count
STOCK_POOLS = {
    "celery.concurrency.prefork:TaskPool": "prefork",
    "celery.concurrency.thread:TaskPool": "threads",
    "celery.concurrency.solo:TaskPool": "solo",
}


def pool_name(pool: Any) -> str | None:
    """Return ``asyncio``, ``prefork``, ``threads`` or ``solo`` for a pool or its class, None for others."""
    kind = pool if isinstance(pool, type) else type(pool)
    if issubclass(kind, AsyncioPool):
        return "asyncio"
    return next((STOCK_POOLS[path] for path in map(path_of, kind.__mro__) if path in STOCK_POOLS), None)


def connect(app: Any) -> None:
    """Choose for the workers of `app`, and for no others."""

    def choose_concurrency(*, conf: Any, instance: Any, options: dict[str, Any], **_: Any) -> None:
        if instance.app is not app or options.get("concurrency") or conf.worker_concurrency:
            return
        pool = options.get("pool") or options.get("pool_cls") or conf.worker_pool
        if not _asks_for_prefork() and pool_name(_implementation(pool)) == "asyncio":
            conf.worker_concurrency = DEFAULT_CONCURRENCY

    def choose_pool(sender: Any, **_: Any) -> None:
        if sender.app is app and _asks_for_prefork():
            sender.pool_cls = "prefork"

    signals.celeryd_init.connect(choose_concurrency, weak=False)
    signals.worker_init.connect(choose_pool, weak=False)


def _asks_for_prefork() -> bool:
    """Whether the command line says `-P prefork`, which Celery takes for the configured pool."""
    context = click.get_current_context(silent=True)
    if context is None or context.get_parameter_source("pool") is not ParameterSource.COMMANDLINE:
        return False
    return pool_name(context.params.get("pool")) == "asyncio" and not concurrency.ALIASES.get("custom")


def _implementation(pool: Any) -> Any:
    try:
        return concurrency.get_implementation(pool)
    except (ImportError, AttributeError, ImproperlyConfigured):
        return None  # Celery's own error, soon, says more


def path_of(kind: type) -> str:
    """Return where a class is, in Celery's notation."""
    return f"{kind.__module__}:{kind.__qualname__}"
