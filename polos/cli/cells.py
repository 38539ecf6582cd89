"""What the cells of tables say: states, times, workers, tokens."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

_COLOURS = {"completed": "green", "failed": "red", "cancelled": "red", "blocked": "red", "running": "cyan"}
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))
WIDE_CHARACTERS = 200  # of lists that nobody looks at: files and pipes fold nothing


def list_console() -> Console:
    """Return a console for lists: as wide as the terminal, wide enough for what reads them otherwise."""
    console = Console(highlight=False)
    if console.is_terminal or os.environ.get("COLUMNS"):
        return console
    return Console(highlight=False, width=WIDE_CHARACTERS)


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


def dollars(cost: float | None) -> str:
    """Return a cost, with as many digits as small ones need; nothing when it is not known."""
    if cost is None:
        return ""
    return (
        f"${cost:,.2f}" if cost >= 0.995 or round(cost, 2) == round(cost, 6) else f"${cost:.6f}".rstrip("0")
    )


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
    """Return a run's failed attempts and lost workers in words, such as `` (1 retry, 2 crashes)``."""
    counted = ((run["retries"], "retry", "retries"), (run["crashes"], "crash", "crashes"))
    words = [f"{count} {one if count == 1 else many}" for count, one, many in counted if count]
    return f" ({', '.join(words)})" if words else ""


def first_line(text: str | None, *, max_characters: int) -> str:
    """Return the first line, shortened."""
    line = (text or "").strip().partition("\n")[0]
    return line if len(line) <= max_characters else f"{line[: max_characters - 1]}…"
