"""What Celery's consumer says of its broker at each attempt, told once with what else the process noticed."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps
from celery.worker.consumer.connection import Connection
from celery.worker.consumer.consumer import CONNECTION_ERROR, CONNECTION_RETRY

from polos.connections import Report

CONSUMER_LOG = "celery.worker.consumer.consumer"


class ConsumerNews(logging.Filter):
    """Takes the consumer's records of lost connections out of its log and reports them."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report

    def attach(self) -> None:
        """Begin to listen."""
        logging.getLogger(CONSUMER_LOG).addFilter(self)

    def detach(self) -> None:
        """Stop listening."""
        logging.getLogger(CONSUMER_LOG).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record stays in the log."""
        error = _lost(record)
        if error is not None:
            self._report(error)
        return error is None or logging.getLogger(CONSUMER_LOG).isEnabledFor(logging.DEBUG)


class ConnectedStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """A consumer bootstep that reports each connection to the broker."""

    requires = (Connection,)

    def start(self, c: Any) -> None:
        """Celery's hook, called for each broker connection."""
        _, connections = c.app.polos
        connections.broker_outage.report("consumer")(None)


def _lost(record: logging.LogRecord) -> BaseException | None:
    args = record.args if isinstance(record.args, tuple) else ()
    tells = record.msg == CONNECTION_ERROR or args[:1] == (CONNECTION_RETRY,)
    error = args[1] if tells and len(args) > 1 else None
    return error if isinstance(error, BaseException) else None
