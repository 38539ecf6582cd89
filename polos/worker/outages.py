"""What Celery says of its broker at each attempt and failure, told once for the whole process."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from celery import bootsteps
from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer.connection import Connection
from celery.worker.consumer.consumer import CONNECTION_ERROR, CONNECTION_RETRY

from polos.connections import Report

LOGS = ("celery.worker.consumer.consumer", "celery.worker.request", "celery.bootsteps")
UNACKNOWLEDGED = "Couldn't ack"
TORN_DOWN_TWICE = "'NoneType' object has no attribute 'connection_errors'"
ADVICE = r"\s*In Celery 5.1 we introduced"  # said at each loss; no task of ours acknowledges late


class ConsumerNews(logging.Filter):
    """Takes what Celery logs of a lost connection out of its logs, and reports the loss.

    Each loss costs an attempt's record every few seconds, a traceback for each message that could not be
    acknowledged (its run is in the journal) and one for each bootstep that was ended without a connection.
    """

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report

    def attach(self) -> None:
        """Begin to listen."""
        for name in LOGS:
            logging.getLogger(name).addFilter(self)
        warnings.filterwarnings("ignore", message=ADVICE, category=CPendingDeprecationWarning)

    def detach(self) -> None:
        """Stop listening."""
        for name in LOGS:
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record stays in the log."""
        error = _lost(record)
        if error is not None:
            self._report(error)
        return not (error or _follows(record)) or logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


class ConnectedStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """A consumer bootstep that reports each connection to the broker."""

    requires = (Connection,)

    def start(self, c: Any) -> None:
        """Celery's hook, called for each broker connection."""
        _, connections = c.app.polos
        connections.broker_outage.report(None)


def _lost(record: logging.LogRecord) -> BaseException | None:
    args = record.args if isinstance(record.args, tuple) else ()
    tells = record.msg == CONNECTION_ERROR or args[:1] == (CONNECTION_RETRY,)
    error = args[1] if tells and len(args) > 1 else None
    return error if isinstance(error, BaseException) else None


def _follows(record: logging.LogRecord) -> bool:
    """Whether it tells of something that comes with every lost connection."""
    text = record.getMessage()
    return text.startswith(UNACKNOWLEDGED) or TORN_DOWN_TWICE in text
