"""Doorbells that need not travel: this worker serves what they are about, and has slots to spare.

A doorbell is handed to Celery's own handler of messages as if the broker had delivered it. So it is the same
request on the same pool, with the same events and the same row in Flower; only the broker is left out. What
it asks to be looked at is claimed as ever, so nothing rests on which way it came.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Container
from typing import Any

from celery import Celery
from kombu.message import Message

from polos.dispatch import Dispatcher, Doorbell
from polos.routes import queue_name
from polos.worker.pool import AsyncioPool


class LocalDelivery:
    """Rings here what this worker may execute at once, and elsewhere by way of the broker.

    Args:
        worker: A Celery worker with our pool.
        share: Which part of the slots may be taken this way, 0 to 1. What exceeds it goes to the broker, so
            that a fan-out spreads over the fleet.
        serves: The routes of this worker.
        deployment: Its version of the code.
        elsewhere: Rings through the broker.
    """

    def __init__(
        self, worker: Any, *, share: float, serves: Container[str], deployment: str, elsewhere: Dispatcher
    ) -> None:
        self._app: Celery = worker.app
        self._pool: AsyncioPool = worker.pool
        self._consumer = worker.consumer
        self._kept = self._pool.limit - int(self._pool.limit * share)
        self._serves = serves
        self._deployment = deployment
        self._elsewhere = elsewhere
        self._handle: Callable[[Message], Any] | None = None
        self._untaken: dict[str, Doorbell] = {}  # by task id: not in a slot yet
        self._pool.on_drain.insert(0, self._give_up)  # while the others can still ring

    def ring(self, *doorbells: Doorbell) -> None:
        """Ring soon, on any thread."""
        for bell in doorbells:
            if self._is_ours(bell):
                task_id = uuid.uuid4().hex
                self._untaken[task_id] = bell
                self._pool.post(self._deliver, task_id)
            else:
                self._elsewhere.ring(bell)

    def _is_ours(self, bell: Doorbell) -> bool:
        return (
            bell.begun
            and bell.hostname is None
            and bell.deployment == self._deployment
            and bell.route in self._serves
            and not self._pool.is_draining
        )

    def _deliver(self, task_id: str) -> None:
        """Hand one over to Celery, on the consumer's thread."""
        if (bell := self._untaken.get(task_id)) is None:
            return  # given up meanwhile
        if self._pool.room <= self._kept:
            del self._untaken[task_id]
            self._elsewhere.ring(bell)
            return
        if self._handle is None:
            self._handle = self._consumer.create_task_handler()
        self._handle(_LocalMessage(self._app, task_id, bell, on_answer=self._taken))

    def _taken(self, task_id: str) -> None:
        self._untaken.pop(task_id, None)

    def _give_up(self) -> None:
        """The worker ends: others do what has no slot yet."""
        while self._untaken:
            self._elsewhere.ring(self._untaken.popitem()[1])


class _LocalMessage(Message):  # type: ignore[misc]  # kombu ships no types
    """What the broker would have delivered, without a broker that waits for an answer."""

    def __init__(
        self, app: Celery, task_id: str, bell: Doorbell, *, on_answer: Callable[[str], None]
    ) -> None:
        self._task_id = task_id
        self._on_answer = on_answer
        made = app.amqp.as_task_v2(
            task_id,
            bell.task,
            bell.args,
            shadow=bell.label,
            ignore_result=True,
            argsrepr=repr(bell.args),  # Celery's own way takes longer than all the rest
            kwargsrepr="{}",
        )
        queue = queue_name(bell.route, bell.deployment, begun=bell.begun)
        super().__init__(
            body=json.dumps(made.body),
            content_type="application/json",
            content_encoding="utf-8",
            headers=made.headers,
            properties=made.properties,
            delivery_info={"exchange": "", "routing_key": queue, "redelivered": False},
        )
        self._decoded_cache = made.body

    def ack(self, multiple: bool = False) -> None:
        """Take note that it has a slot."""
        self._answered("ACK")

    def reject(self, requeue: bool = False) -> None:
        """Let go of it: the journal's promise rings again."""
        self._answered("REJECTED")

    def requeue(self) -> None:
        """Let go of it: the journal's promise rings again."""
        self._answered("REQUEUED")

    def _answered(self, state: str) -> None:
        self._state = state
        self._on_answer(self._task_id)
