"""Celery's events of tasks, for Flower, go out a few times a second instead of one by one."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker.consumer.events import Events
from kombu.common import ignore_errors

from polos.worker.pool import AsyncioPool

BATCH_SECONDS = 0.05  # nobody sees in Flower that an event is this much late
MAX_EVENTS = 500  # in one message; Celery's own bound of 24 would be reached many times a second


class EventBatchesStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """A consumer bootstep: `app.steps["consumer"].add(EventBatchesStep)`. Does nothing for other pools.

    Celery publishes what its consumer has noted at every turn of the hub: on a busy worker a message for
    each event, which was an eighth of all its work.
    """

    requires = (Events,)
    _is_due = False

    def include_if(self, c: Any) -> bool:
        """Celery's hook: whether the step is part of this worker."""
        return isinstance(c.pool, AsyncioPool)

    def create(self, c: Any) -> None:
        """Celery's hook, called once, before the consumer connects."""
        self._consumer = c
        c.on_send_event_buffered = self._noted

    def start(self, c: Any) -> None:
        """Celery's hook, called for each broker connection."""
        self._is_due = False  # the timer of an earlier hub may never go off
        if c.event_dispatcher is not None:  # a worker without events has none
            c.event_dispatcher.buffer_limit = MAX_EVENTS

    def stop(self, c: Any) -> None:
        """Celery's hook: the worker ends, or its connection is lost."""
        if c.event_dispatcher is not None:
            ignore_errors(c, c.event_dispatcher.flush)

    def _noted(self) -> None:
        hub = self._consumer.hub
        if not self._is_due and hub is not None:
            self._is_due = True
            hub.call_soon(hub.call_later, BATCH_SECONDS, self._flush)  # from whatever thread

    def _flush(self) -> None:
        self._is_due = False
        if self._consumer.event_dispatcher is not None:
            self._consumer.event_dispatcher.flush()
