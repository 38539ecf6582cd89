"""`polos runs --watch`: the list again and again; where nobody looks at a terminal, a line per change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from polos.cli.cells import first_line, worker_name
from polos.cli.journal import reading
from polos.cli.run_list import MAX_ERROR_CHARACTERS, Lister, Overview, run_table, totals_line
from polos.errors import JournalUnavailableError

REFRESH_SECONDS = 1.0
_WATCHED = ("status", "attempt", "owner")  # a change of one of these is told


def watch(console: Console, lister: Lister) -> None:
    """Show what `lister` finds, once a second, until Ctrl-C."""
    try:
        if console.is_terminal:
            _watch_live(console, lister)
        else:
            _watch_plain(console, lister)
    except KeyboardInterrupt:
        return


def _watch_live(console: Console, lister: Lister) -> None:
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for seen in _looks(lister):
            live.update(_screen(seen, console.width), refresh=True)


def _screen(seen: Overview | str, width: int) -> Group | Text:
    if isinstance(seen, str):
        return Text(seen, style="red")
    return Group(Text(totals_line(seen), style="bold"), run_table(seen.runs, width=width))


def _looks(lister: Lister) -> Iterator[Overview | str]:
    """Look once a second, for ever; a database that is away is told instead, and looked for again.

    The first look is not forgiven: it may be the wrong database.
    """
    with reading() as journal:
        yield lister.overview(journal)
    while True:
        try:
            with reading() as journal:
                while True:
                    time.sleep(REFRESH_SECONDS)
                    yield lister.overview(journal)
        except JournalUnavailableError as error:
            yield f"{error} Trying again."
            time.sleep(REFRESH_SECONDS)


# -- without a terminal


def _watch_plain(console: Console, lister: Lister) -> None:
    changes = Changes()
    for seen in _looks(lister):
        for line in changes.lines(seen):
            console.print(Text(f"{datetime.now(UTC).astimezone():%H:%M:%S}  {line}"), soft_wrap=True)


class Changes:
    """Tells what is new in each look."""

    def __init__(self) -> None:
        self._runs: dict[str, dict[str, Any]] = {}
        self._workers: dict[str, str] = {}
        self._totals = ""
        self._trouble = ""

    def lines(self, seen: Overview | str) -> list[str]:
        """Return a line for each change since the last look, the totals last if they changed."""
        if isinstance(seen, str):
            trouble, self._trouble = self._trouble, seen
            return [] if trouble else [seen]
        self._trouble = ""
        known = {**self._workers, **seen.workers}
        lines = self._workers_that_changed(seen)
        for run in reversed(seen.runs):
            lines += self._changes_of(run, known)
        self._runs = {run["id"]: run for run in seen.runs}
        return lines + self._new_totals(seen)

    def _workers_that_changed(self, seen: Overview) -> list[str]:
        before, self._workers = self._workers, seen.workers
        gone = [f"worker {before[one]} is gone" for one in before if one not in seen.workers]
        return gone + [f"worker {name} is here" for one, name in seen.workers.items() if one not in before]

    def _changes_of(self, run: dict[str, Any], workers: dict[str, str]) -> list[str]:
        before = self._runs.get(run["id"])
        if before is not None and all(before[name] == run[name] for name in _WATCHED):
            return []
        words = [f"{run['name']} {run['id']}", run["status"]]
        if before is not None and before["status"] != run["status"]:
            words[-1] = f"{before['status']} → {run['status']}"
        if run["attempt"] > 1:
            words.append(f"attempt {run['attempt']}")
        if run["owner"]:
            words.append(f"on {worker_name(run['owner'], workers)}")
        if run["error"]:
            words.append(first_line(run["error"], max_characters=MAX_ERROR_CHARACTERS))
        return ["  ".join(words)]

    def _new_totals(self, seen: Overview) -> list[str]:
        before, self._totals = self._totals, totals_line(seen)
        return [] if before == self._totals else [self._totals]
