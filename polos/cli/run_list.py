"""Lists of runs: read from the journal, shown as a table, a line of totals above it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from polos.cli.cells import age, first_line, span, state_cell, troubles, worker_name
from polos.journal.database import Connection
from polos.journal.listing import (
    TOTALLED_RUNS,
    Query,
    RunFilter,
    listed_run,
    newest_runs,
    status_totals,
)
from polos.journal.states import RunStatus
from polos.journal.workers import READ_WORKER_DETAILS, worker_details

MAX_ERROR_CHARACTERS = 80
WIDE_FROM_CHARACTERS = 120  # width of the terminal
SHORT_ID_CHARACTERS = 8  # `polos runs show` takes as many
_HEADINGS = ("id", "name", "kind", "state", "age", "took", "attempts", "worker", "tokens", "error")
_WIDE_ONLY = {"kind", "tokens", "error"}
_FOLDED = {"name", "worker"}  # where there is no room
_MIN_WIDTHS = {"name": 12, "worker": 8}


@dataclass(frozen=True)
class Overview:
    """What is known at one moment.

    Attributes:
        runs: The newest first, each with ``worker``, the node name of its owner.
        totals: How many runs are in each state.
        are_partial: They leave out runs older than the newest `TOTALLED_RUNS`.
        workers: Node names by worker id, of those that are registered.
        live: How many of them beat.
    """

    runs: list[dict[str, Any]]
    totals: dict[str, int]
    are_partial: bool
    workers: dict[str, str]
    live: int


class Lister:
    """Reads the runs that pass a filter, as often as wanted."""

    def __init__(self, wanted: RunFilter, *, limit: int, silence_limit_seconds: float) -> None:
        self._newest = newest_runs(wanted, limit=limit)
        self._totals = status_totals(wanted)
        self._project = wanted.project
        self._silence_limit_seconds = silence_limit_seconds

    def runs(self, journal: Connection) -> list[dict[str, Any]]:
        """Return the newest runs, each with ``worker``, the node name of its owner."""
        return self._runs(journal, _names(self._workers(journal)))

    def overview(self, journal: Connection) -> Overview:
        """Return the newest runs with the totals and the workers."""
        workers = self._workers(journal)
        live = [one for one in workers if one["now"] - one["beat_at"] < self._silence_limit_seconds]
        names = _names(workers)
        counted = _rows(journal, self._totals)
        return Overview(
            runs=self._runs(journal, names),
            totals={status: count for status, count, _ in counted},
            are_partial=sum(seen for _, _, seen in counted) >= TOTALLED_RUNS,
            workers=names,
            live=len(live),
        )

    def _workers(self, journal: Connection) -> list[dict[str, Any]]:
        found = [worker_details(row) for row in journal.read(READ_WORKER_DETAILS, {})]
        return [worker for worker in found if worker["project"] == self._project]

    def _runs(self, journal: Connection, workers: dict[str, str]) -> list[dict[str, Any]]:
        runs = [listed_run(row) for row in _rows(journal, self._newest)]
        return [{**run, "worker": worker_name(run["owner"], workers) or None} for run in runs]


def _names(workers: Iterable[dict[str, Any]]) -> dict[str, str]:
    return {worker["id"]: worker["hostname"] for worker in workers}


def _rows(journal: Connection, query: Query) -> Any:
    return journal.read(query.statement, query.params)


def run_table(runs: Iterable[dict[str, Any]], *, width: int) -> Table:
    """Return a list of runs as a table; a narrow one has fewer columns, and the beginnings of ids only."""
    is_wide = width >= WIDE_FROM_CHARACTERS
    headings = [heading for heading in _HEADINGS if is_wide or heading not in _WIDE_ONLY]
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for heading in headings:
        table.add_column(
            heading,
            no_wrap=heading not in _FOLDED,
            min_width=_MIN_WIDTHS.get(heading),
            overflow="ellipsis" if heading == "error" else "fold",
        )
    for run in runs:
        cells = _cells(run)
        cells["id"] = run["id"] if is_wide else run["id"][:SHORT_ID_CHARACTERS]
        table.add_row(*(cells[heading] for heading in headings))
    return table


def _cells(run: dict[str, Any]) -> dict[str, str | Text]:
    return {
        "name": Text(run["name"]),
        "kind": run["kind"],
        "state": state_cell(run["status"]),
        "age": age(run["now"] - run["created_at"]),
        "took": span(run["started_at"], run["finished_at"] or run["now"]),
        "attempts": f"{run['attempt']}{troubles(run)}",
        "worker": Text(run["worker"] or ""),
        "tokens": str(run["total_tokens"] or ""),
        "error": Text(first_line(run["error"], max_characters=MAX_ERROR_CHARACTERS), style="red"),
    }


def totals_line(overview: Overview) -> str:
    """Return the totals in words, such as ``2 running, 5 completed; 3 workers``."""
    counts = [f"{overview.totals[status]} {status}" for status in RunStatus if overview.totals.get(status)]
    of_newest = f" (of the newest {TOTALLED_RUNS:,})" if overview.are_partial else ""
    workers = f"{overview.live} live worker{'s' * (overview.live != 1)}"
    return f"{', '.join(counts) or 'no runs'}{of_newest}; {workers}"
