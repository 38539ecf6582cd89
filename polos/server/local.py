"""Local mode: who is served without a key. Programs of this machine, never a web page of somebody else."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from polos.server.errors import ApiError

LOCAL_NAMES = {"localhost", "localhost."}


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine itself, whatever a name server says."""
    if host.lower() in LOCAL_NAMES:
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def refuse_strangers(request: HTTPConnection, allowed_origins: Collection[str]) -> None:
    """Return if a request comes from a program of this machine.

    A page of another site may be made to send requests here: by a name that it resolves to this machine (its
    Host header tells), or directly (its Origin header does).

    Raises:
        ApiError: It does not, or may not.
    """
    client = request.client.host if request.client else ""
    host = request.headers.get("host", "")
    if not (is_loopback(client) and is_loopback(_host_name(host))):
        raise ApiError(
            401,
            "Local mode serves only programs of its own machine, by the name localhost. For others: "
            "start the server without POLOS_LOCAL_MODE, and make keys with 'polos keys create'",
        )
    origin = request.headers.get("origin")
    if origin is not None and origin not in allowed_origins and urlsplit(origin).netloc != host:
        raise ApiError(
            403, f"Pages of {origin!r} may not use this server; name it in POLOS_CORS_ORIGINS if they shall"
        )


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets that do not match
        return ""
