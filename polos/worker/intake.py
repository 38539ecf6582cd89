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
from kombu.transport import virtual

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

    def stop(self, c: Any) -> None:
        """Celery's hook: the worker ends, or its connection is lost."""
        if c.connection is not None and c.task_consumer is not None:
            ignore_errors(c.connection, settle, c.task_consumer.channel, wait=c.pool.owns_process)


def settle(channel: Any, *, wait: bool) -> None:
    """End a pending blocking pop, which would take one more message while the worker drains.

    Args:
        channel: The consumer's channel; anything but kombu's Redis channel is left alone.
        wait: Wait for the server's own time-out, at most a second, and put back what it still delivers.
            Else close its socket at once, unless the answer is there: a message that is on its way in that
            instant is lost.
    """
    connection = getattr(channel, "_in_poll", None)
    if not connection:
        return
    if not wait and not connection.can_read(timeout=0):
        connection.disconnect()
        return
    with contextlib.suppress(Empty):
        channel._brpop_read()


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
