"""A look at a Redis or Valkey before it is used, to tell a wrong setting from a server that is away."""

from __future__ import annotations

import socket
import ssl

import redis
from redis.exceptions import (
    AuthenticationError,
    InvalidResponse,
    NoPermissionError,
    RedisError,
)

from polos.errors import ServiceUnavailableError
from polos.streaming.server import RedisServer

PROBE_SECONDS = 2.0
NO_TLS = "asks for TLS, but the server does not speak it on this port; use the URL without TLS"


def check_server(server: RedisServer) -> None:
    """Return if the server can be used as it is configured.

    Raises:
        ConfigurationError: It is there, but login, TLS, database or kind are not as configured.
        ServiceUnavailableError: It does not answer. Safe to retry.
    """
    try:
        if server.master_name:
            _check_master_name(server)
        with server.blocking_client(timeout_seconds=PROBE_SECONDS) as client:
            client.ping()
            _refuse_cluster(server, client)
    except (RedisError, OSError) as error:
        raise _explained(server, error) from error


def speaks_tls(host: str, port: int) -> bool:
    """Whether something at this address answers a TLS handshake."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), PROBE_SECONDS) as plain:
            context.wrap_socket(plain).close()
    except ssl.SSLError as error:
        return "CERTIFICATE_REQUIRED" in str(error)
    except OSError:
        return False
    return True


def wrong_tls(error: BaseException) -> str | None:
    """Return what a failed TLS handshake means for whoever wrote the URL; None if it was something else."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"reaches a server whose certificate is not trusted ({_reason(text)}); name its CA in the URL"
    if "CERTIFICATE_REQUIRED" in text or "HANDSHAKE_FAILURE" in text:
        return "reaches a server that wants a certificate from its clients; name one in the URL"
    if any(
        sign in text
        for sign in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF", "record layer")
    ):
        return NO_TLS
    return None


def _answers_in_the_clear(host: str, port: int) -> bool:
    """Whether a Redis answers without TLS: it waits in silence for the end of a line in the handshake."""
    try:
        with socket.create_connection((host, port), PROBE_SECONDS) as plain:
            plain.sendall(b"PING\r\n")
            return plain.recv(1) in {b"+", b"-"}
    except OSError:
        return False


def _check_master_name(server: RedisServer) -> None:
    """Tell an unknown name from a failover: then the name is known, but there is no master for a while."""
    for sentinel in server.sentinels(PROBE_SECONDS).sentinels:
        try:
            masters = sentinel.sentinel_masters()
        except redis.ConnectionError:
            continue
        if server.master_name not in masters:
            known = ", ".join(map(repr, masters)) or "none"
            raise server.wrong(f"has master_name={server.master_name!r}; its sentinels know {known}")
        return


def _refuse_cluster(server: RedisServer, client: redis.Redis) -> None:
    try:
        told = client.info("server")
    except NoPermissionError:
        return  # this user may not ask
    if "cluster" in {told.get("redis_mode"), told.get("server_mode")}:  # the latter is Valkey's
        raise server.wrong(
            "is a node of a Redis Cluster, which Celery cannot use: name a single server, or one behind "
            "Sentinel"
        )


def _explained(server: RedisServer, error: Exception) -> Exception:
    text = str(error)
    if isinstance(error, NoPermissionError):
        return server.wrong(f"logs in a user who may not do what polos needs ({text}); see docs/brokers.md")
    if not server.login and text.startswith(("NOAUTH", "HELLO ")):
        return server.wrong("has no password, but the server wants one; write '://:password@host'")
    if isinstance(error, AuthenticationError) or text.startswith(("NOAUTH", "WRONGPASS", "AUTH ")):
        return server.wrong(
            f"is refused by the server: {text} Write '://user:password@host' or '://:password@host'"
        )
    if "DB index is out of range" in text or "invalid DB index" in text:
        return server.wrong(f"names database {server.db}, which the server does not have")
    if isinstance(error, InvalidResponse):
        return server.wrong(f"does not lead to a Redis or Valkey: {text}")
    if (problem := _tls_problem(server, error)) is not None:
        return server.wrong(problem)
    return ServiceUnavailableError(
        f"The server {server} does not answer ({error}). Check that it runs and that {server.setting} is "
        "right."
    )


def _tls_problem(server: RedisServer, error: Exception) -> str | None:
    if server.socket_path or server.master_name:
        return wrong_tls(error)
    host, port = server.nodes[0]
    if server.tls is not None:
        return wrong_tls(error) or (NO_TLS if _answers_in_the_clear(host, port) else None)
    if "refused" not in str(error) and speaks_tls(host, port):
        return "has no TLS, but the server speaks nothing else on this port; write 'rediss://'"
    return None


def _reason(text: str) -> str:
    return text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or "verify failed"
