"""Bounds what a worker takes from the broker: no message while no slot of its asyncio pool is free."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from queue import Empty
from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks
from kombu.common import ignore_errors
from kombu.transport import redis, virtual
from redis.exceptions import ResponseError

from polos.worker.pool import AsyncioPool


class IntakeStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """A consumer bootstep: `app.steps["consumer"].add(IntakeStep)`. Does nothing for other pools.

    Celery's own bound is the prefetch window, which counts unacknowledged messages; tasks that acknowledge
    early leave it at once, so one worker would take a whole queue. On Redis (and kombu's other virtual
    transports) the channel asks before each read, so the answer is the pool's room. A free slot wakes
    the hub, which asks again. Brokers that push (AMQP) get a prefetch of `-c`; a message is acknowledged
    when its task gets a slot, so at most that many wait here.
    """

    requires = (Tasks,)

    _pop: _BlockingPop | None = None

    def include_if(self, c: Any) -> bool:
        """Celery's hook: whether the step is part of this worker."""
        return isinstance(c.pool, AsyncioPool)

    def create(self, c: Any) -> None:
        """Celery's hook, called once, before the consumer connects."""
        c.prefetch_multiplier = 1
        c.initial_prefetch_count = c.pool.limit
        c.create_task_handler = functools.partial(_guarded_handler, c.pool, c.create_task_handler)

    def start(self, c: Any) -> None:
        """Celery's hook, called for each broker connection: ask the pool before each read."""
        channel = c.task_consumer.channel
        if isinstance(channel, virtual.Channel):
            channel.qos.can_consume = functools.partial(_can_consume, c.pool, channel)
        self._pop = _BlockingPop(channel) if isinstance(channel, redis.Channel) else None

    def stop(self, c: Any) -> None:
        """Celery's hook: the worker ends, or its connection is lost."""
        pop, self._pop = self._pop, None
        if pop is not None and c.connection is not None:
            ignore_errors(c.connection, pop.end)


class _BlockingPop:
    """The pop a Redis channel waits in, which can be ended without losing a message.

    Left pending, it takes one more message while the worker drains. Closing its socket loses the message
    that the server sends before it notices.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._start = channel._brpop_start
        self._socket: Any = None
        self._client_id: int | None = None
        channel._brpop_start = self._identify_and_start

    def end(self) -> None:
        """End a pending pop; a message it has got after all goes back to its queue."""
        if not self._channel._in_poll:
            return
        if self._client_id is not None:
            with self._channel.conn_or_acquire() as client:
                client.client_unblock(self._client_id)
        # Without an id the answer comes with the pop's own time-out, a second at most.
        with contextlib.suppress(Empty):
            self._channel._brpop_read()

    def _identify_and_start(self, *args: Any) -> None:
        connection = self._channel.client.connection
        if connection._sock is not self._socket:  # the first pop on this connection
            self._socket = connection._sock
            self._client_id = _client_id(connection)
        self._start(*args)


def _client_id(connection: Any) -> int | None:
    connection.send_command("CLIENT", "ID")
    try:
        return int(connection.read_response())
    except ResponseError:
        return None  # not this user's to ask


def _can_consume(pool: AsyncioPool, channel: Any) -> bool:
    # A pop that is under way must be read: its message has left the broker already.
    if getattr(channel, "_in_poll", None):
        return True
    # The class's method, not the instance's: `worker_disable_prefetch` replaces that one by a bound
    # which counts tasks that gave their slot back.
    return pool.room > 0 and bool(type(channel.qos).can_consume(channel.qos))


def _guarded_handler(
    pool: AsyncioPool, create_handler: Callable[[], Callable[[Any], Any]]
) -> Callable[[Any], Any]:
    handle = create_handler()

    def on_message(message: Any) -> Any:
        # A pop sent while a slot was free may end after a resuming task took that slot. Another
        # worker may have room now; here the message could wait for minutes.
        if pool.room <= 0 and isinstance(message.channel, virtual.Channel):
            return message.requeue()
        return handle(message)

    return on_message
