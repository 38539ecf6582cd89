"""Where a Redis or Valkey is and how to log in: one reading of its URL for our pub/sub and for Celery."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from polos.errors import ConfigurationError
from polos.settings import hide_password

TCP_SCHEMES = ("redis", "rediss", "valkey", "valkeys")
SOCKET_SCHEMES = ("unix", "redis+socket", "valkey+socket")
SENTINEL_SCHEMES = ("sentinel", "sentinels")
TLS_SCHEMES = ("rediss", "valkeys", "sentinels")
SCHEMES = (*TCP_SCHEMES, *SOCKET_SCHEMES, *SENTINEL_SCHEMES)
REDIS_PORT = 6379
SENTINEL_PORT = 26379
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_PASSED_ON = ("master_name", "min_other_sentinels", "sentinel_kwargs")
_NONE: Mapping[str, Any] = MappingProxyType({})


def _flag(text: str) -> bool:
    if text.lower() not in {"true", "false", "yes", "no", "1", "0"}:
        raise ValueError("must be true or false")
    return text.lower() in {"true", "yes", "1"}


def _verification(text: str) -> str:
    """Return redis-py's word for what kombu writes as ``CERT_REQUIRED``."""
    word = text.upper().rpartition("CERT_")[2].lower()
    if word not in {"required", "optional", "none"}:
        raise ValueError("must be required, optional or none")
    return word


_TLS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys((*_TLS_FILES, "ssl_ca_path", "ssl_ca_data", "ssl_password", "ssl_ciphers"), str),
    "ssl_cert_reqs": _verification,
    "ssl_check_hostname": _flag,
    "ssl_min_version": int,
}
_CONNECTION: dict[str, Callable[[str], Any]] = {
    "socket_timeout": float,
    "socket_connect_timeout": float,
    "socket_keepalive": _flag,
    "health_check_interval": int,
    "client_name": str,
}
_OTHERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("username", "password", "master_name", "sentinel_username", "sentinel_password"), str),
    "db": int,
    "virtual_host": int,
}
_PARSERS = _TLS | _CONNECTION | _OTHERS


@dataclass(frozen=True)
class RedisServer:
    """One Redis or Valkey. Holds no connection.

    Attributes:
        url: As it was configured, for messages; hide its password.
        setting: Where it was configured.
        nodes: Host and port; those of the sentinels if there is a `master_name`.
        socket_path: Unix socket, instead of nodes.
        login: ``username`` and ``password``, as far as they are given.
        tls: redis-py's ``ssl_…`` arguments, None without TLS.
        master_name: What the sentinels call the server.
        sentinel: Arguments for connections to the sentinels themselves.
        connection: Further arguments for connections to the server.
    """

    url: str = field(repr=False)
    setting: str = "POLOS_REDIS_URL"
    nodes: tuple[tuple[str, int], ...] = ()
    socket_path: str = ""
    db: int = 0
    login: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: Mapping[str, Any] | None = None
    master_name: str = ""
    min_other_sentinels: int = 0
    sentinel: Mapping[str, Any] = field(default_factory=dict, repr=False)
    connection: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        setting: str = "POLOS_REDIS_URL",
        use_ssl: bool | Mapping[str, Any] = False,
        options: Mapping[str, Any] = _NONE,
    ) -> RedisServer:
        """Read a URL in redis-py's or kombu's spelling.

        Args:
            url: ``redis[s]://``, ``valkey[s]://``, ``unix://``, ``redis+socket://`` or
                ``sentinel://host;sentinel://host``.
            setting: Named in errors.
            use_ssl: Celery's ``broker_use_ssl``, which turns TLS on.
            options: Celery's ``broker_transport_options``; those about sentinels are heeded.

        Raises:
            ConfigurationError: It cannot be read, or TLS or sentinel options are wrong or missing.
        """
        return _Reader(url, setting, use_ssl, options).server()

    def __str__(self) -> str:
        return hide_password(self.url)

    def wrong(self, problem: str) -> ConfigurationError:
        """Return the error that tells a user what is wrong with this server's setting."""
        return ConfigurationError(f"{self.setting}={str(self)!r} {problem}")

    @property
    def celery_url(self) -> str:
        """The URL for kombu: TLS and sentinel options are given apart."""
        username, password = (quote(self.login.get(word, ""), safe="") for word in ("username", "password"))
        return self._url(f"{username}:{password}@" if password else "")

    def _url(self, login: str) -> str:
        if self.socket_path:
            return f"redis+socket://{login}{quote(self.socket_path)}?virtual_host={self.db}"
        scheme = "sentinel" if self.master_name else "rediss" if self.tls is not None else "redis"
        hosts = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes]
        # Each whole, for kombu forgets what only the first one says when it turns to the next.
        return ";".join(f"{scheme}://{login}{host}/{self.db}" for host in hosts)

    @property
    def celery_options(self) -> dict[str, Any]:
        """What kombu has to be told besides, as ``broker_transport_options``."""
        if not self.master_name:
            return dict(self.connection)
        once = {"retry": Retry(NoBackoff(), 0)}  # the next sentinel is the second attempt
        return {
            **self.connection,
            "master_name": self.master_name,
            "min_other_sentinels": self.min_other_sentinels,
            "sentinel_kwargs": {**once, **self.sentinel},
        }

    def client(self, **options: Any) -> redis.asyncio.Redis:
        """Return a client for the running loop; give it to `close_client` at the end.

        Args:
            options: Arguments of its connections, unless the URL has them.
        """
        given = {**options, **self.connection, **self.login, "db": self.db}
        if self.master_name:
            return redis.asyncio.Redis(connection_pool=self._sentinel_pool(options, given))
        kind: type[redis.asyncio.connection.AbstractConnection] = redis.asyncio.Connection
        if self.socket_path:
            given["path"] = self.socket_path
            kind = redis.asyncio.UnixDomainSocketConnection
        else:
            [(given["host"], given["port"])] = self.nodes
        if self.tls is not None:
            given.update(self.tls)
            kind = redis.asyncio.SSLConnection
        return redis.asyncio.Redis(connection_pool=redis.asyncio.ConnectionPool(kind, **given))

    def _sentinel_pool(self, options: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
        timeouts = {name: value for name, value in options.items() if name.startswith("socket_")}
        once = {"retry": AsyncRetry(NoBackoff(), 0)}
        manager = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]  # so in redis-py
            self.nodes, self.min_other_sentinels, {**timeouts, **once, **self.sentinel}
        )
        tls = {"ssl": True, **self.tls} if self.tls is not None else {}
        pool: Any = redis.asyncio.sentinel.SentinelConnectionPool  # untyped in redis-py
        return pool(self.master_name, manager, **given, **tls)

    def blocking_client(self, *, timeout_seconds: float) -> redis.Redis:
        """Return a client for a short look from a thread.

        Raises:
            redis.RedisError: No sentinel tells where the server is.
        """
        timeouts = {"socket_timeout": timeout_seconds, "socket_connect_timeout": timeout_seconds}
        given: dict[str, Any] = {**timeouts, **self.login, "db": self.db, "retry": Retry(NoBackoff(), 0)}
        if self.socket_path:
            return redis.Redis(unix_socket_path=self.socket_path, **given)
        if self.master_name:
            sentinels: Any = self.sentinels(timeout_seconds)  # untyped in redis-py
            host, port = sentinels.discover_master(self.master_name)
        else:
            [(host, port)] = self.nodes
        return redis.Redis(host=host, port=port, ssl=self.tls is not None, **(self.tls or {}), **given)

    def sentinels(self, timeout_seconds: float) -> redis.sentinel.Sentinel:
        """Return the sentinels, to be asked from a thread."""
        timeouts = {"socket_timeout": timeout_seconds, "socket_connect_timeout": timeout_seconds}
        once = {"retry": Retry(NoBackoff(), 0)}
        return redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]  # so in redis-py
            self.nodes, self.min_other_sentinels, {**timeouts, **once, **self.sentinel}
        )


async def close_client(client: redis.asyncio.Redis) -> None:
    """Close a client of `RedisServer.client`, and its connections to sentinels."""
    await client.aclose()
    await client.connection_pool.disconnect()
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    if manager is not None:
        await manager.aclose()


class _Reader:
    """Reads one URL."""

    def __init__(
        self, url: str, setting: str, use_ssl: bool | Mapping[str, Any], options: Mapping[str, Any]
    ) -> None:
        self._url = url
        self._setting = setting
        self._use_ssl = use_ssl
        self._options = {name: options[name] for name in _PASSED_ON if options.get(name)}
        self.scheme = url.partition("://")[0].lower()

    def server(self) -> RedisServer:
        self._check_scheme()
        parts = [self._split(part) for part in re.split(r";(?=\w+://)", self._url)]
        query = self._query(parts)
        first = parts[0]
        login = {
            "username": unquote(first.username or "") or query.get("username"),
            "password": unquote(first.password or "") or query.get("password"),
        }
        connection = {name: query[name] for name in _CONNECTION if name in query}
        return RedisServer(
            url=self._url,
            setting=self._setting,
            socket_path=unquote(first.path) if self._is_socket else "",
            nodes=() if self._is_socket else tuple(self._node(part) for part in parts),
            db=self._db(parts, query),
            login={name: value for name, value in login.items() if value},
            tls=self._tls(query),
            connection=connection,
            **self._sentinels(query),
        )

    @property
    def _is_socket(self) -> bool:
        return self.scheme in SOCKET_SCHEMES

    @property
    def _is_sentinel(self) -> bool:
        return self.scheme in SENTINEL_SCHEMES

    def wrong(self, problem: str) -> ConfigurationError:
        return ConfigurationError(f"{self._setting}={hide_password(self._url)!r} {problem}")

    def _check_scheme(self) -> None:
        if "cluster" in self.scheme:
            raise self.wrong(
                "names a Redis Cluster, which Celery cannot use: name a single server, or one behind Sentinel"
            )
        if "://" not in self._url or self.scheme not in SCHEMES:
            raise self.wrong(
                "is not the URL of a Redis or Valkey; write it like 'redis://:password@host:6379/0' "
                "('rediss://' with TLS), 'unix:///path/to/socket' or "
                "'sentinel://host:26379;sentinel://host2:26379/0?master_name=mymaster'"
            )

    def _split(self, text: str) -> SplitResult:
        rest = text.partition("://")[2] or text
        try:
            part = urlsplit(f"redis://{rest}")
            _ = part.port
        except ValueError:
            # Not the reason itself: it quotes what may be a piece of the password.
            raise self.wrong(
                "cannot be read: host or port is wrong. Signs such as '/', '@', ':' or '#' in a password are "
                "written as %2F, %40, %3A, %23"
            ) from None
        if part.fragment:
            raise self.wrong("contains '#'; in a password write %23")
        if self._is_socket and not part.path.strip("/"):
            raise self.wrong("names no socket; write 'unix:///path/to/socket'")
        return part

    def _node(self, part: SplitResult) -> tuple[str, int]:
        default = SENTINEL_PORT if self._is_sentinel else REDIS_PORT
        return unquote(part.hostname or "127.0.0.1"), part.port or default

    def _query(self, parts: list[SplitResult]) -> dict[str, Any]:
        if len(parts) > 1 and not self._is_sentinel:
            raise self.wrong("names several servers; for failover use Sentinel ('sentinel://…;sentinel://…')")
        query = {}
        for name, text in [pair for part in parts for pair in parse_qsl(part.query)]:
            if name not in _PARSERS:
                raise self.wrong(f"has the unknown option {name!r}; known are {', '.join(sorted(_PARSERS))}")
            try:
                query[name] = _PARSERS[name](text)
            except ValueError as error:
                raise self.wrong(f"has {name}={text!r}, which cannot be used: {error}") from error
        return query

    def _db(self, parts: list[SplitResult], query: Mapping[str, Any]) -> int:
        paths = [] if self._is_socket else [unquote(part.path).strip("/") for part in parts]
        text = str(query.get("db", query.get("virtual_host", ""))) or next(filter(None, paths), "0")
        if not text.isdecimal():
            raise self.wrong(f"has {text!r} where the number of a database belongs, such as '/0'")
        return int(text)

    def _tls(self, query: Mapping[str, Any]) -> dict[str, Any] | None:
        options = {name: query[name] for name in _TLS if name in query}
        if self._use_ssl and self._is_socket:
            raise self.wrong("names a unix socket, which has no TLS; leave broker_use_ssl out")
        if self.scheme not in TLS_SCHEMES and not self._use_ssl:
            if options:
                raise self.wrong(f"has {min(options)!r} but no TLS; write '{_with_tls(self.scheme)}://'")
            return None
        if isinstance(self._use_ssl, Mapping):
            options = {**_from_celery(self._use_ssl), **options}
        for name in _TLS_FILES:
            if name in options and not Path(options[name]).is_file():
                raise self.wrong(f"needs {name}={str(options[name])!r}, which is not a file")
        return {"ssl_cert_reqs": "required", **options}

    def _sentinels(self, query: Mapping[str, Any]) -> dict[str, Any]:
        if not self._is_sentinel:
            return {}
        name = query.get("master_name") or self._options.get("master_name")
        if not name:
            raise self.wrong(
                "names sentinels but not what they watch; add '?master_name=mymaster', or "
                "broker_transport_options = {'master_name': 'mymaster'} to celeryconfig.py"
            )
        login = {
            word: query[f"sentinel_{word}"]
            for word in ("username", "password")
            if f"sentinel_{word}" in query
        }
        return {
            "master_name": name,
            "min_other_sentinels": int(self._options.get("min_other_sentinels", 0)),
            "sentinel": {**self._options.get("sentinel_kwargs", {}), **login},
        }


def _with_tls(scheme: str) -> str:
    return {"redis": "rediss", "valkey": "valkeys", "sentinel": "sentinels"}.get(scheme, "rediss")


def _from_celery(use_ssl: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``broker_use_ssl`` in redis-py's words; Celery knows the names with and without ``ssl_``."""
    options = {f"ssl_{name.removeprefix('ssl_')}": value for name, value in use_ssl.items()}
    if "ssl_cert_reqs" in options:
        reqs = options["ssl_cert_reqs"]
        options["ssl_cert_reqs"] = _verification(getattr(reqs, "name", None) or str(reqs or "none"))
    return options
