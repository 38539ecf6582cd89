"""How a client asks its server: an HTTP client per event loop, and attempts until one succeeds."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from polos import serialization
from polos.forks import Forked
from polos.remote.refusals import Trouble, is_missing, refusal, unreachable
from polos.settings import hide_password
from polos.transport import ServerAddress, is_loopback

BASE = "/api/v1"
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
PATIENCE_SECONDS = 5.0  # with a server that does not answer a call
KEEP_SECONDS = 3.0  # an idle connection: servers drop theirs after five, and what is sent then is lost
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0


class Pauses:
    """The pauses between attempts; they grow until one succeeds, and end when the patience does."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience = patience_seconds
        self.reset()

    def reset(self) -> None:
        """Begin anew: an attempt succeeded."""
        self._until = time.monotonic() + self._patience
        self._pause = FIRST_PAUSE_SECONDS

    async def after(self, trouble: Trouble, *, at_least_seconds: float = 0.0) -> None:
        """Return when it is time for another attempt.

        Raises:
            Exception: The error of `trouble`, if another attempt cannot help or the patience is at its end.
        """
        pause = max(self._pause * random.uniform(0.75, 1.25), trouble.retry_after_seconds, at_least_seconds)
        if not trouble.passes or time.monotonic() + pause > self._until:
            raise trouble.error from trouble.__cause__
        await asyncio.sleep(pause)
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)


class ServerConnection(Forked):
    """A server, as one client sees it. Made anew for each event loop and after a fork.

    Args:
        address: Where it is.
        project_id: Sent with each request, if it is known.
    """

    def __init__(self, address: ServerAddress, *, project_id: str | None) -> None:
        self._address = address
        self.url = hide_password(address.url)
        self._headers = {"Authorization": f"Bearer {address.api_key}"} if address.api_key else {}
        if project_id is not None:
            self._headers["X-Project-ID"] = project_id
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()
        self._left: list[httpx.AsyncClient] = []
        self.watch_forks()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        is_repeatable: bool = True,
        patience_seconds: float = PATIENCE_SECONDS,
        wait_seconds: float = 0.0,
    ) -> httpx.Response | None:
        """Return the answer, None when there is no such thing.

        Args:
            method: GET, POST, PUT or DELETE.
            path: Below the API's own.
            body: JSON data.
            params: Of the query.
            is_repeatable: Sent again even if it may have arrived.
            patience_seconds: With a server that does not answer.
            wait_seconds: How long the server was asked to wait.

        Raises:
            ServerUnavailableError: The server does not answer, or not now. Safe to retry if repeatable.
            AccessDeniedError: It does not accept the key, or not for this project.
            IdempotencyError, ValueError: It does not accept the request.
            ConfigurationError: It is no `polos server`.
        """
        pauses = Pauses(patience_seconds)
        content = None if body is None else serialization.dumps(body).encode()
        timeout = httpx.Timeout(READ_SECONDS + wait_seconds, connect=CONNECT_SECONDS, pool=None)
        while True:
            try:
                request = self._client().build_request(
                    method, BASE + path, content=content, params=params, timeout=timeout
                )
                return self._found(await self._sent(request))
            except Trouble as trouble:
                trouble.passes = trouble.passes and (is_repeatable or trouble.was_refused)
                await pauses.after(trouble)

    @asynccontextmanager
    async def streaming(
        self, path: str, *, params: Mapping[str, Any], headers: Mapping[str, str], silence_seconds: float
    ) -> AsyncIterator[httpx.Response | None]:
        """Give the answer to a GET while it comes, None when there is no such thing.

        Raises:
            Trouble: There is no answer, or it ends for another reason than that it is complete.
        """
        timeout = httpx.Timeout(silence_seconds, connect=CONNECT_SECONDS, pool=None)
        request = self._client().build_request(
            "GET", BASE + path, params=params, headers=headers, timeout=timeout
        )
        response = await self._sent(request, stream=True)
        try:
            if not response.is_success:
                await response.aread()
            yield self._found(response)
        except httpx.TransportError as error:
            raise unreachable(error, self.url) from error
        finally:
            await response.aclose()

    async def _sent(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        try:
            return await self._client().send(request, stream=stream)
        except httpx.TransportError as error:
            raise unreachable(error, self.url) from error

    def _found(self, response: httpx.Response) -> httpx.Response | None:
        if is_missing(response, self.url):
            return None
        if not response.is_success:
            raise refusal(response, self.url)
        return response

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if (client := self._clients.get(loop)) is None:
            for ended in [known for known in self._clients if known.is_closed()]:
                del self._clients[ended]  # a client refers to its loop, which would keep both for ever
            client = self._clients[loop] = httpx.AsyncClient(
                base_url=self._address.url,
                headers={"Content-Type": "application/json", **self._headers},
                limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEP_SECONDS),
                trust_env=not is_loopback(self._address.url),  # no proxy leads to this machine
            )
        return client

    async def leave_loop(self) -> None:
        """Give up what belongs to the running event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def forget(self) -> None:
        """Begin anew, in a child; what is dropped here would be closed."""
        self._left += self._clients.values()
        self._clients = WeakKeyDictionary()
