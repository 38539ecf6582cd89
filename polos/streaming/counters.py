"""Counters in Redis that all processes share and that expire by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

import redis.asyncio
from redis.exceptions import RedisError

from polos.streaming.server import RedisServer, close_client

TIMEOUT_SECONDS = 1.0
Report = Callable[[BaseException | None], None]


class Counters:
    """Counts by name. What cannot be counted, because Redis is away, is reported and answered by None."""

    def __init__(self, server: RedisServer, *, prefix: str, report: Report = lambda error: None) -> None:
        self._server = server
        self._prefix = prefix
        self._report = report
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, redis.asyncio.Redis] = WeakKeyDictionary()

    async def add(self, name: str, *, expire_seconds: int) -> int | None:
        """Add one; return the count. The name is forgotten so long after its first count."""
        key = f"{self._prefix}count:{name}"
        try:
            async with self._client().pipeline(transaction=False) as pipe:
                pipe.incr(key)
                pipe.expire(key, expire_seconds, nx=True)
                count, _ = await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            self._report(error)
            return None
        return int(count)

    async def close(self) -> None:
        """Close the connections of the running loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await close_client(client)

    def _client(self) -> redis.asyncio.Redis:
        loop = asyncio.get_running_loop()
        if (client := self._clients.get(loop)) is None:
            client = self._clients[loop] = self._server.client(
                socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS, decode_responses=True
            )
        return client
