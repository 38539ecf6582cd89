"""What a Redis or Valkey says of itself."""

from __future__ import annotations

import time
from dataclasses import dataclass

from redis.exceptions import RedisError

from polos.errors import ServiceUnavailableError
from polos.streaming.probe import check_server
from polos.streaming.server import RedisServer

TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True)
class RedisAnswer:
    """What a server that answers says of itself.

    Attributes:
        name: Such as ``Valkey 9.1.2``.
        evicts: Its ``maxmemory-policy``, if it has a limit and removes keys at it; else empty.
    """

    name: str
    latency_seconds: float
    evicts: str


def ask_redis(server: RedisServer) -> RedisAnswer:
    """Return what `server` says of itself.

    Raises:
        ConfigurationError: It is there, but login, TLS, database or kind are not as configured.
        ServiceUnavailableError: It does not answer.
    """
    check_server(server)
    try:
        with server.blocking_client(timeout_seconds=TIMEOUT_SECONDS) as client:
            client.ping()  # connects
            began = time.monotonic()
            told = client.info()
            took = time.monotonic() - began
    except (RedisError, OSError) as error:
        raise ServiceUnavailableError(f"{server} does not tell about itself ({error})") from error
    name = "Valkey" if told.get("server_name") == "valkey" else "Redis"
    policy = told.get("maxmemory_policy", "noeviction") if told.get("maxmemory") else "noeviction"
    return RedisAnswer(
        name=f"{name} {told.get('valkey_version') or told.get('redis_version', '')}".strip(),
        latency_seconds=took,
        evicts="" if policy == "noeviction" else policy,
    )
