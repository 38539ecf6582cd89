"""What the cells of tables say: states, times, workers, tokens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.text import Text

_COLOURS = {"completed": "green", "failed": "red", "cancelled": "red", "blocked": "red", "running": "cyan"}
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))


def state_cell(status: str) -> Text:
    """Return a state in its colour."""
    return Text(status, style=_COLOURS.get(status, "yellow"))


def worker_name(worker_id: str | None, workers: dict[str, str]) -> str:
    """Return the node name of a worker that lives, the beginning of the id of one that is gone."""
    return "" if worker_id is None else workers.get(worker_id) or worker_id[:8]


def moment(seconds: float) -> str:
    """Return a time in the local time zone."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(sep=" ", timespec="seconds")


def span(since: float | None, until: float | None) -> str:
    """Return how long something took, in seconds; nothing when one end is unknown."""
    return "" if since is None or until is None else f"{max(until - since, 0.0):.2f} s"


def age(seconds: float) -> str:
    """Return a duration in two units at most, such as ``3h 20m``."""
    seconds = max(seconds, 0.0)
    for place, (size, unit) in enumerate(_UNITS):
        if seconds >= size:
            below, small = _UNITS[place + 1] if place + 1 < len(_UNITS) else (1, "s")
            rest = int(seconds % size // below)
            return f"{int(seconds // size)}{unit}" + (f" {rest}{small}" if rest else "")
    return f"{int(seconds)}s"


def troubles(run: dict[str, Any]) -> str:
    """Return a run's failed attempts and lost workers in words, such as `` (1 retries, 2 crashes)``."""
    words = [f"{run[name]} {name}" for name in ("retries", "crashes") if run[name]]
    return f" ({', '.join(words)})" if words else ""


def first_line(text: str | None, *, max_characters: int) -> str:
    """Return the first line, shortened."""
    line = (text or "").strip().partition("\n")[0]
    return line if len(line) <= max_characters else f"{line[: max_characters - 1]}…"
