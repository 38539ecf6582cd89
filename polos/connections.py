"""What this process talks to: configured servers, or the embedded ones of its folder."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import amqp.exceptions  # type: ignore[import-untyped]  # amqp ships no types
import kombu
from celery import Celery
from kombu.exceptions import OperationalError

from polos.dispatch import broker_settings
from polos.embedded.home import open_home
from polos.embedded.valkey import EmbeddedValkey
from polos.encryption import codec_of
from polos.errors import ConfigurationError, ServiceUnavailableError
from polos.journal.database import Database
from polos.settings import Settings, hide_password
from polos.streaming.probe import check_server, speaks_tls, wrong_tls
from polos.streaming.server import SCHEMES, RedisServer

logger = logging.getLogger("polos.connections")

AMQP_SCHEMES = ("amqp", "amqps", "pyamqp")
AMQP_PORT, AMQPS_PORT = 5672, 5671
LATE_NEWS_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 3.0  # between attempts of a worker to reach its broker
Report = Callable[[BaseException | None], None]

# For workers and clients, unless celeryconfig.py says otherwise.
BROKER_DEFAULTS: dict[str, Any] = {
    "broker_connection_max_retries": None,  # Celery's own worker gives up after a hundred
}


class Outage:
    """Says once that a server is away, and once that it is back, whoever of the process finds out.

    Connections that were idle meanwhile fail after the server has come back: what is reported so soon is late
    news. A new outage is reported again and again, hence also later.
    """

    def __init__(self, lost: str, back: str) -> None:
        """Take the two messages; `lost` has a ``%s`` for the reason."""
        self._lost, self._back = lost, back
        self._lock = threading.Lock()
        self._is_out = False
        self._back_at = float("-inf")

    def report(self, error: BaseException | None) -> None:
        """Take in how an attempt to use the server went: an error, or None."""
        with self._lock:
            now = time.monotonic()
            if error is None and self._is_out:
                self._is_out, self._back_at = False, now
                logger.warning(self._back)
            elif error is not None and not self._is_out and now - self._back_at > LATE_NEWS_SECONDS:
                self._is_out = True
                logger.warning(self._lost, error)


@dataclass(frozen=True)
class Broker:
    """A broker, as configured and as Celery shall see it. `redis` is None for RabbitMQ."""

    url: str = field(repr=False)
    setting: str
    celery: Mapping[str, Any] = field(repr=False)
    redis: RedisServer | None = None

    def __str__(self) -> str:
        return hide_password(self.url)

    def own_redis(self) -> RedisServer:
        """Return the server for notices, where none is configured.

        Raises:
            ConfigurationError: The broker is RabbitMQ, which cannot carry them.
        """
        if self.redis is None:
            raise ConfigurationError(
                f"{self.setting} names RabbitMQ, so POLOS_REDIS_URL must name a Redis or Valkey server for "
                "live notices, such as 'redis://localhost:6379/0'"
            )
        return self.redis

    def outage(self) -> Outage:
        """Return what tells of its outages."""
        name = str(self).replace("%", "%%")
        return Outage(
            f"The broker {name} does not answer (%s). What was started is accepted and starts when the "
            f"broker is back; check {self.setting}.",
            f"The broker {name} answers again.",
        )


def broker_at(
    url: str, *, setting: str, use_ssl: Any = False, options: Mapping[str, Any] | None = None
) -> Broker:
    """Read a broker's URL: what Celery gets, and the Redis server behind it if it is one.

    Args:
        url: Of a Redis, Valkey or RabbitMQ.
        setting: Named in errors.
        use_ssl: Celery's ``broker_use_ssl``.
        options: Celery's ``broker_transport_options``; they come before those of the URL.

    Raises:
        ConfigurationError: The URL cannot be used.
    """
    scheme = url.partition("://")[0].lower()
    if "://" in url and scheme in AMQP_SCHEMES:
        settings = {**broker_settings(url, options), **_amqp_tls(url, setting, use_ssl)}
        return Broker(url, setting, settings)
    if "://" not in url or (scheme not in SCHEMES and "cluster" not in scheme):
        raise ConfigurationError(
            f"{setting}={hide_password(url)!r} names no broker that polos can use: write the URL of a Redis "
            "or Valkey ('redis://:password@host:6379/0', 'rediss://' with TLS) or of RabbitMQ "
            "('amqp://user:password@host:5672/vhost')"
        )
    server = RedisServer.from_url(url, setting=setting, use_ssl=use_ssl, options=options or {})
    settings = broker_settings(server.celery_url, {**server.celery_options, **(options or {})})
    if server.master_name:
        settings["broker_transport_options"].update(server.celery_options)
    if server.tls is not None:
        settings["broker_use_ssl"] = dict(server.tls)
    return Broker(url, setting, settings, server)


class Connections:
    """The database, broker and Redis of one process. Close it to let embedded services end.

    Attributes:
        direct_database: The database without a pooler in between, for what rests on a session.
        broker: Where doorbells go.
        redis: Where notices go; the broker itself unless POLOS_REDIS_URL names another.
        broker_outage: What everything that uses the broker reports to.
        redis_outage: The same for notices; the broker's if they are one server.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        broker_url: str = "",
        use_ssl: Any = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Resolve the URLs; starts or joins the embedded services when something is not configured.

        Args:
            settings: Whose URLs come first.
            broker_url: The broker of celeryconfig.py; POLOS_BROKER_URL comes before it.
            use_ssl: Celery's ``broker_use_ssl``.
            options: Celery's ``broker_transport_options``.

        Raises:
            ConfigurationError: A URL cannot be used; nothing was started.
        """
        self.settings = settings
        self.valkey: EmbeddedValkey | None = None
        setting = "POLOS_BROKER_URL" if settings.broker_url else "broker_url"
        url = settings.broker_url or broker_url
        broker = broker_at(url, setting=setting, use_ssl=use_ssl, options=options) if url else None
        redis = RedisServer.from_url(settings.redis_url) if settings.redis_url else None
        database_url = settings.database_url
        if not (broker and database_url):
            home = open_home(settings.home)
            database_url = database_url or home.database_url
        self.database = Database(
            database_url, sqlite_sync=settings.sqlite_sync, codec=codec_of(settings.encryption_keys)
        )
        self.direct_database = self._direct(settings)
        self.broker = broker or self._embedded(EmbeddedValkey(home.path), options)
        self.redis = redis or self.broker.own_redis()
        self.broker_outage = self.redis_outage = self.broker.outage()
        if redis is not None:
            self.redis_outage = _redis_outage(redis)

    def _direct(self, settings: Settings) -> Database:
        url = settings.database_direct_url
        direct = Database(url, variable="POLOS_DATABASE_DIRECT_URL") if url else self.database
        if direct.is_sqlite != self.database.is_sqlite:
            raise ConfigurationError(
                "POLOS_DATABASE_DIRECT_URL names another kind of database than POLOS_DATABASE_URL; it is the "
                "way to the same PostgreSQL that goes around a connection pooler. Unset it"
            )
        return direct

    def _embedded(self, valkey: EmbeddedValkey, options: Mapping[str, Any] | None) -> Broker:
        valkey.acquire()
        self.valkey = valkey
        return broker_at(valkey.broker_url, setting="POLOS_HOME", options=options)

    def check(self, app: Celery) -> None:
        """Return if broker and Redis can be used as they are configured.

        Raises:
            ConfigurationError: One of them is there, but login, TLS or database are not as configured.
            ServiceUnavailableError: One of them does not answer. Safe to retry.
        """
        if self.broker.redis is None:
            _check_amqp(app, self.broker)
        elif self.valkey is None:
            check_server(self.broker.redis)
        if self.redis is not self.broker.redis:
            check_server(self.redis)

    def refuse_wrong(self, app: Celery) -> None:
        """Check, at the start of a process, what only a person can mend; a server that is away comes back.

        Raises:
            ConfigurationError: Broker or Redis are there, but not as they are configured.
        """
        try:
            self.check(app)
        except ServiceUnavailableError as error:
            logger.debug("%s", error)  # who uses it next reports it
        except ConfigurationError:
            self.close()
            raise

    def revive(self) -> None:
        """Start the embedded server again if it died."""
        if self.valkey is not None:
            self.valkey.refresh()

    def close(self) -> None:
        """Stop using the embedded server."""
        if self.valkey is not None:
            self.valkey.release()


def configured_app(
    settings: Settings, defaults: Mapping[str, Any], *, beside: Connections | None = None
) -> tuple[Celery, Connections]:
    """Return the Celery app of this folder and the connections it uses.

    What its celeryconfig.py sets comes before `defaults`; POLOS_BROKER_URL comes before both.

    Args:
        settings: Of this process.
        defaults: Celery settings.
        beside: Connections of the same process and settings, which tell of outages already.

    Raises:
        ConfigurationError: A URL cannot be used.
    """
    app = Celery("polos", set_as_current=False)
    app.config_from_object("celeryconfig", silent=True)
    chosen = set(app.loader.conf or ())
    connections = Connections(
        settings,
        broker_url=_one_url(app.conf.broker_url),
        use_ssl=app.conf.broker_use_ssl,
        options=app.conf.broker_transport_options,
    )
    if beside is not None:
        connections.broker_outage, connections.redis_outage = beside.broker_outage, beside.redis_outage
    ours = {**BROKER_DEFAULTS, **defaults}
    app.conf.update({name: value for name, value in ours.items() if name not in chosen})
    app.conf.update(connections.broker.celery)
    if app.conf.task_default_queue_type == "quorum" and "task_create_missing_queue_type" not in chosen:
        app.conf.task_create_missing_queue_type = "quorum"  # every queue of ours is a missing one
    app.amqp.Connection = BrokerConnection
    return app, connections


def connections_of(app: Celery, settings: Settings) -> Connections:
    """Return the connections of a program's own Celery app; one without a broker gets the embedded one.

    Raises:
        ConfigurationError: A URL cannot be used, or POLOS_BROKER_URL names another broker than the app.
    """
    own = _one_url(app.conf.broker_url)
    if own and settings.broker_url not in {"", own}:
        raise ConfigurationError(
            f"The Celery app {app.main!r} has the broker {hide_password(own)}, but POLOS_BROKER_URL names "
            f"{hide_password(settings.broker_url)}; unset POLOS_BROKER_URL, or set it to the app's"
        )
    connections = Connections(
        settings,
        broker_url=own,
        use_ssl=app.conf.broker_use_ssl,
        options=app.conf.broker_transport_options,
    )
    if not own:
        app.conf.update(connections.broker.celery)
    return connections


_installed: list[Celery] = []


def remember_installed(app: Celery) -> None:
    """Make `app` the one that clients of this process ring through."""
    _installed[:] = [app]


def installed_app() -> Celery | None:
    """Return the program's own Celery app that polos is installed in, if there is one."""
    return _installed[0] if _installed else None


class BrokerConnection(kombu.Connection):  # type: ignore[misc]  # kombu ships no types
    """A kombu connection that is tried again every few seconds, and that a worker survives the loss of."""

    def _ensure_connection(self, *args: Any, **options: Any) -> Any:
        # kombu's own pauses grow to half a minute.
        pauses = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": LONGEST_PAUSE_SECONDS}
        return super()._ensure_connection(*args, **{**pauses, **options})

    def collect(self, socket_timeout: float | None = None) -> None:
        """Give a broken connection up."""
        try:
            super().collect(socket_timeout)
        finally:
            # Left behind, it is closed again by `close`; with a message that was not acknowledged (kombu
            # 5.7, Redis) that fails on the transport that is gone, and ends the whole worker.
            self._default_channel = None


def _one_url(urls: Any) -> str:
    """Return Celery's `broker_url`, which may be a list for failover."""
    return urls if isinstance(urls, str) else ";".join(urls or ())


def _redis_outage(server: RedisServer) -> Outage:
    name = str(server).replace("%", "%%")
    return Outage(
        f"Redis at {name} does not answer (%s). Until it is back, notices come late; check {server.setting}.",
        f"Redis at {name} answers again.",
    )


# -- RabbitMQ


def _amqp_tls(url: str, setting: str, use_ssl: Any) -> dict[str, Any]:
    """Return Celery's settings for the TLS of an AMQP URL, whose ``ssl_…`` options kombu would misread."""
    if not url.lower().startswith("amqps") and not use_ssl:
        return {}
    options: dict[str, Any] = {}
    for part in url.split(";"):
        options.update(parse_qsl(urlsplit(part).query))
    tls = {name.removeprefix("ssl_"): value for name, value in options.items() if name.startswith("ssl_")}
    given = use_ssl if isinstance(use_ssl, Mapping) else {}
    word = str(tls.pop("cert_reqs", "required")).upper().rpartition("CERT_")[2]
    if not hasattr(ssl, f"CERT_{word}"):
        raise ConfigurationError(f"{setting} has an ssl_cert_reqs other than required, optional and none")
    reqs = getattr(ssl, f"CERT_{word}")
    name = {"server_hostname": None} if reqs is not ssl.CERT_NONE else {}  # None: that of the URL
    return {
        "broker_url": ";".join(part.partition("?")[0] for part in url.split(";")),
        "broker_use_ssl": {"cert_reqs": reqs, **name, **tls, **given},
    }


def _check_amqp(app: Celery, broker: Broker) -> None:
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.2, reraise_as_library_errors=False)
    except (OperationalError, amqp.exceptions.AMQPError, OSError) as error:
        raise _explained(broker, error) from error


def _explained(broker: Broker, error: Exception) -> Exception:
    parts = urlsplit(broker.url.partition(";")[0])
    text = str(error).strip() or type(error).__name__
    setting = f"{broker.setting}={str(broker)!r}"
    if isinstance(error, amqp.exceptions.AccessRefused):
        return ConfigurationError(f"{setting} is refused by RabbitMQ: wrong user or password ({text})")
    if isinstance(error, amqp.exceptions.NotAllowed):
        vhost = unquote(parts.path[1:]) or "/"
        return ConfigurationError(
            f"{setting} names the virtual host {vhost!r}, which this user cannot use ({text})"
        )
    if "broker_use_ssl" in broker.celery:
        problem = wrong_tls(error)
    else:
        talks = "refused" not in text and speaks_tls(parts.hostname or "localhost", parts.port or AMQP_PORT)
        problem = (
            "has no TLS, but the server speaks nothing else on this port; write 'amqps://'" if talks else None
        )
    if problem is not None:
        return ConfigurationError(f"{setting} {problem}")
    return ServiceUnavailableError(
        f"The broker {broker} does not answer ({text}). Check that it runs and that {broker.setting} is "
        "right."
    )
