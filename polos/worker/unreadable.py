"""Messages that are none of ours, or nobody's, are thrown away: a line of the log, never a dead worker."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from queue import Empty
from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks
from kombu.transport import redis

from polos.routes import RUN_TASK, TURN_TASK

logger = logging.getLogger("polos.worker")

MAX_DOORBELL_BYTES = 16 << 10  # ours have some 200: ids, and a step's name of 400 characters
MAX_ID_CHARACTERS = 1024
JSON = "application/json"
_CONTENT_ERRORS = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
Handler = Callable[[Any], Any]


class UnreadableStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """A consumer bootstep for every pool: whoever can write to the broker cannot end a worker by a message.

    kombu reads envelopes in the hub's own loop, and Celery looks into headers there: what they cannot make
    sense of would end the process, and the next one that takes it.
    """

    requires = (Tasks,)

    def create(self, c: Any) -> None:
        """Celery's hook, called once, before the consumer connects."""
        c.create_task_handler = functools.partial(_readable_handler, c, c.create_task_handler)

    def start(self, c: Any) -> None:
        """Celery's hook, called for each broker connection."""
        transport = c.connection.transport
        if isinstance(transport, redis.Transport):
            # Of all its channels: tasks, remote control, and what workers tell each other.
            transport.cycle.on_readable = _skipping(transport.cycle.on_readable)


def doorbell_ids(args: tuple[Any, ...], kwargs: Mapping[str, Any], wanted: int) -> list[str] | None:
    """Return the ids that a message of ours carries, None when it is none of ours."""
    if kwargs or len(args) != wanted or not all(_is_id(one) for one in args):
        logger.warning("A message on the broker is no doorbell of polos; it was thrown away")
        return None
    return list(args)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARACTERS and "\0" not in value


def _skipping(read: Callable[..., Any]) -> Callable[..., Any]:
    """Return a reader of messages that goes on after an envelope that is none."""

    def read_one(*args: Any) -> Any:
        try:
            return read(*args)
        except _CONTENT_ERRORS as error:
            # Not what it holds: that is somebody else's, and may be anything.
            logger.warning("A message on the broker cannot be read (%s); it was thrown away", _kind(error))
            raise Empty from error  # as if nothing had come

    return read_one


def _readable_handler(c: Any, create_handler: Callable[[], Handler]) -> Handler:
    handle = create_handler()

    def on_message(message: Any) -> Any:
        try:
            if (problem := _problem(message)) is None:
                return handle(message)
        except _CONTENT_ERRORS as error:
            problem = _kind(error)
        logger.warning("A message on the broker was thrown away: %s", problem)
        return message.reject_log_error(logger, c.connection_errors)

    return on_message


def _problem(message: Any) -> str | None:
    """Return why a message that claims to be a doorbell is none; nothing of its body is unpacked for that."""
    headers = message.headers or {}
    if headers.get("task") not in (RUN_TASK, TURN_TASK):
        return None
    if message.content_type != JSON:
        return f"doorbells are {JSON}, not {str(message.content_type)[:80]!r}"
    if headers.get("compression"):
        return "doorbells are never compressed"
    if len(message.body or b"") > MAX_DOORBELL_BYTES:
        return f"doorbells have {MAX_DOORBELL_BYTES} bytes at most"
    return None


def _kind(error: Exception) -> str:
    return type(error).__name__
