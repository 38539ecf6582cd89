"""Has the log lines of worker processes tell runs and steps, where Celery configured logging."""

from __future__ import annotations

import logging
from typing import Any

from celery import signals
from celery.utils.log import ColorFormatter

from polos.logs import RunFilter, tell_runs


class WorkerLogs:
    """Listens to Celery setting its logging up. A program that does that itself is left alone."""

    def __init__(self, log_format: str) -> None:
        self._format = log_format
        self._filter = RunFilter()

    def connect(self) -> None:
        """Begin to listen; the first of a process does, others have nothing to add."""
        for signal, receiver in (
            (signals.celeryd_init, self._on_worker),
            (signals.after_setup_logger, self._on_logger),
            (signals.after_setup_task_logger, self._on_logger),
        ):
            signal.connect(receiver, weak=False, dispatch_uid="polos.logs")

    def _on_worker(self, sender: Any, **_: Any) -> None:
        self._filter.worker = sender

    def _on_logger(self, logger: logging.Logger, **_: Any) -> None:
        for handler in logger.handlers:
            if isinstance(handler.formatter, ColorFormatter):  # Celery's own; others are the program's
                tell_runs(handler, self._format, self._filter)
