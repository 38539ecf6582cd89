"""Which broker the workers of this folder use, who says so, and what it answers. Starts none."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery

from polos.connections import Broker, broker_at
from polos.dispatch import quietly
from polos.embedded.home import Home
from polos.embedded.valkey import EmbeddedValkey
from polos.errors import ConfigurationError, ServiceUnavailableError
from polos.settings import Settings
from polos.streaming.health import ask_redis
from polos.streaming.server import RedisServer

CELERY_VARIABLE = "CELERY_BROKER_URL"  # Celery's own, which comes before celeryconfig.py


@dataclass(frozen=True)
class FoundBroker:
    """What is configured.

    Attributes:
        url: Empty when nothing is: the embedded server of the folder is the broker then.
        origin: The variable or file that says so.
        app: Has the rest of celeryconfig.py, such as certificates.
    """

    url: str = field(repr=False)
    origin: str
    app: Celery

    @property
    def concurrency(self) -> int | None:
        """What celeryconfig.py sets for workers, None when it does not."""
        return (self.app.loader.conf or {}).get("worker_concurrency")

    def at(self, url: str) -> Broker:
        """Return the broker at `url`, with the rest as configured.

        Raises:
            ConfigurationError: The URL cannot be used.
        """
        conf = self.app.conf
        return broker_at(
            url,
            setting=self.origin or "POLOS_HOME",
            use_ssl=conf.broker_use_ssl,
            options=conf.broker_transport_options,
        )


@dataclass(frozen=True)
class BrokerAnswer:
    """What a broker that answers says of itself.

    Attributes:
        name: Such as ``Valkey 9.1.2``.
        evicts: The ``maxmemory-policy`` of a Redis that removes keys when it is full; else empty.
    """

    name: str
    latency_seconds: float
    evicts: str = ""


def find_broker(settings: Settings) -> FoundBroker:
    """Return the broker that workers of this folder use.

    Raises:
        ConfigurationError: The folder's celeryconfig.py cannot be imported.
    """
    if (folder := str(Path.cwd())) not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    app = Celery("polos", set_as_current=False)
    app.config_from_object("celeryconfig", silent=True)
    try:
        urls = app.conf.broker_url or ""
    except Exception as error:  # whatever the file raises
        raise ConfigurationError(
            f"celeryconfig.py cannot be imported ({type(error).__name__}: {error}); mend it"
        ) from error
    if settings.broker_url:
        return FoundBroker(settings.broker_url, "POLOS_BROKER_URL", app)
    url = urls if isinstance(urls, str) else ";".join(urls)
    origin = CELERY_VARIABLE if os.environ.get(CELERY_VARIABLE) else "broker_url in celeryconfig.py"
    return FoundBroker(url, origin if url else "", app)


def find_redis(settings: Settings) -> RedisServer | None:
    """Return the Redis of the workers of this folder; None where it is the embedded one and does not run.

    Raises:
        ConfigurationError: It is not configured as it must be.
    """
    if settings.redis_url:
        return RedisServer.from_url(settings.redis_url)
    found = find_broker(settings)
    url = found.url or EmbeddedValkey(Home(settings.home.expanduser().resolve()).path).look()
    return None if url is None else found.at(url).own_redis()


def ask_broker(found: FoundBroker, url: str) -> BrokerAnswer:
    """Return what the broker at `url`, configured as `found`, says of itself.

    Raises:
        ConfigurationError: The URL cannot be used, or the server is not as it says.
        ServiceUnavailableError: It does not answer, or lets nobody in.
    """
    broker = found.at(url)
    if broker.redis is not None:
        told = ask_redis(broker.redis)
        return BrokerAnswer(told.name, told.latency_seconds, told.evicts)
    return _ask_amqp(found.app, broker)


def _ask_amqp(app: Celery, broker: Broker) -> BrokerAnswer:
    app.conf.update(broker.celery)
    with app.connection_for_write() as connection:
        began = time.monotonic()
        error = quietly(lambda: connection.ensure_connection(max_retries=1, interval_start=0.2))
        if error is not None:
            raise ServiceUnavailableError(f"{broker} does not answer ({error})") from error
        took = time.monotonic() - began
        told: dict[str, Any] = getattr(connection.connection, "server_properties", None) or {}
        product = told.get("product") or connection.transport.driver_type
        return BrokerAnswer(f"{product} {told.get('version', '')}".strip(), took)
