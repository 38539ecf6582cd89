"""The HTTP connections that model calls use, and what happens on them during one call."""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from polos.models.recent import Recent
from polos.models.streams.reading import Refused, Streamed, send_streamed

Body = dict[str, Any]
BeforeSend = Callable[[], Awaitable[None]]


# Of keys, base URLs and schemas that a process may meet by thousands: one for each customer. Clients share
# their connections, so that none is closed with the one that is forgotten.
KEPT = 256


def _recent() -> Recent[Any, Any]:
    return Recent(KEPT)


@dataclass
class Exchange:
    """What happens on the network during one call.

    Attributes:
        before_send: Awaited when a connection stands, immediately before the request goes out.
        streamed: Who is told of the pieces of the answer; None asks for it whole.
        answered: Whether a successful answer has arrived, or begun to.
    """

    before_send: BeforeSend | None = None
    streamed: Streamed | None = None
    answered: bool = False


_exchange: ContextVar[Exchange | None] = ContextVar("polos_model_exchange", default=None)


class ObservedClient(httpx.AsyncClient):
    """An HTTP client that keeps to the `Exchange` of the call it is used in."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._refused: Refused = _recent()

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send `request`; a streamed answer is passed on as it comes, and returned whole."""
        if (exchange := _exchange.get()) is None:
            return await super().send(request, **options)
        if exchange.before_send is not None:
            request.extensions = {**request.extensions, "trace": _gate(exchange.before_send)}
        if exchange.streamed is None:
            return await self._send(request, exchange, **options)
        send = partial(self._send, exchange=exchange, **{**options, "stream": True})
        return await send_streamed(send, request, exchange.streamed, refused=self._refused)

    async def _send(self, request: httpx.Request, exchange: Exchange, **options: Any) -> httpx.Response:
        response = await super().send(request, **options)
        exchange.answered |= response.is_success
        return response


def _gate(before_send: BeforeSend) -> Callable[[str, Body], Awaitable[None]]:
    """Return a trace function for httpcore, which awaits it at each stage of a request."""

    async def trace(stage: str, _: Body) -> None:
        if stage.endswith(".send_request_headers.started"):
            await before_send()

    return trace


@contextmanager
def exchanging(exchange: Exchange) -> Iterator[None]:
    """Have what is sent in this context keep to `exchange`."""
    token = _exchange.set(exchange)
    try:
        yield
    finally:
        _exchange.reset(token)


@dataclass
class Connections:
    """The HTTP connections of one event loop, kept open between calls, and what was learned about servers."""

    http: ObservedClient
    sdk_clients: Recent[Any, Any] = field(default_factory=_recent)
    """Clients of libraries that send with `http`, by what they were built for."""
    chat_only_base_urls: Recent[str | None, bool] = field(default_factory=_recent)
    refused_schemas: Recent[tuple[str | None, str, str], bool] = field(default_factory=_recent)
    """Base URL, model and output schema that is asked for in the prompt instead."""
    closer: AsyncIterator[None] | None = None


# Keyed by loop because connections belong to one; a process has no better place that every caller shares.
_connections: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Connections] = weakref.WeakKeyDictionary()


async def connections() -> Connections:
    """Return the running loop's connections; they are closed when the loop shuts down."""
    loop = asyncio.get_running_loop()
    if (found := _connections.get(loop)) is None or found.http.is_closed:
        found = open_connections(_http_client())
        found.closer = _close_with_loop(found.http)
        await anext(found.closer)
    return found


def open_connections(http: ObservedClient) -> Connections:
    """Make `http` what calls on the running loop use, and return it with nothing learned yet."""
    opened = _connections[asyncio.get_running_loop()] = Connections(http=http)
    return opened


async def close_connections() -> None:
    """Close the running loop's connections; the next call opens new ones."""
    if (found := _connections.pop(asyncio.get_running_loop(), None)) is not None:
        await found.http.aclose()


async def _close_with_loop(http: httpx.AsyncClient) -> AsyncIterator[None]:
    # A loop closes its unfinished async generators when it shuts down: the only hook it has.
    try:
        yield
    finally:
        await http.aclose()


def _http_client() -> ObservedClient:
    return ObservedClient(
        verify=tls_context(),
        follow_redirects=True,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # keys of several tenants share it
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=30),
    )


@cache
def tls_context() -> ssl.SSLContext:
    """Return what verifies providers' certificates; reading them takes 50 ms, so once per process."""
    return httpx.create_ssl_context()
