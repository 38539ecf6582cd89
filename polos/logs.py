"""Log records that say which run and step they come from, in Celery's format or as a JSON object per line.

Worker processes use these unless the program configures logging itself, which may use them too.
"""

from __future__ import annotations

import copy
import json
import logging
from datetime import UTC, datetime
from typing import Any

from polos.current import current_place
from polos.redacting import hide_sent, redacted

LIBRARIES = {
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "mcp",
}  # tell in their logs whom they ask, and what they get


class RunFilter(logging.Filter):
    """Gives every record `run_id`, `step` and `worker`; each is None where there is none.

    For handlers, not loggers: a handler's filter sees the records of all loggers that reach it.

    Attributes:
        worker: Celery node name of this process, None outside workers.
    """

    def __init__(self, worker: str | None = None) -> None:
        super().__init__()
        self.worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True: nothing is left out. What the program put into `extra` itself stays."""
        place = current_place.get()
        record.__dict__.setdefault("run_id", None if place is None else place.run_id)
        record.__dict__.setdefault("step", None if place is None else place.step)
        record.__dict__.setdefault("worker", self.worker)
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time` (ISO 8601, UTC), `level`, `logger`, `message`, and what else is known.

    That is `run_id`, `step` and `worker` from `RunFilter`, and `exception`, a traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        told: dict[str, Any] = {
            "time": _iso(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("run_id", "step", "worker"):
            if (value := getattr(record, name, None)) is not None:
                told[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            told["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            told["stack"] = self.formatStack(record.stack_info)
        for name in ("message", "exception", "stack"):
            if name in told:
                told[name] = _clean(record, told[name])
        return redacted(json.dumps(told, default=str))


class TextFormatter(logging.Formatter):
    """Another formatter's text, with the run and the step at the end of the message where there are any."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return what the other formatter makes of the record."""
        run_id, step = getattr(record, "run_id", None), getattr(record, "step", None)
        if run_id is None:
            return _clean(record, self._inner.format(record))
        message = record.getMessage()
        where = "" if run_id in message else f" run={run_id}"
        where += f" step={step}" if step is not None else ""
        placed = copy.copy(record)  # other handlers have formats of their own
        placed.msg, placed.args = message + where, ()
        return _clean(record, self._inner.format(placed))


def tell_runs(handler: logging.Handler, log_format: str, run_filter: RunFilter) -> None:
    """Have `handler` tell runs and steps: in its own format with ``"text"``, as JSON with ``"json"``."""
    inner = handler.formatter or logging.Formatter()
    handler.addFilter(run_filter)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter(inner))


def _clean(record: logging.LogRecord, text: str) -> str:
    return redacted(hide_sent(text) if record.name.partition(".")[0] in LIBRARIES else text)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
