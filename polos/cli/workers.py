"""`polos workers`: who serves runs, what each offers, and what it is doing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from polos.cli.cells import age, list_console
from polos.cli.journal import reading
from polos.journal.database import Connection
from polos.journal.listing import READ_DEFINITIONS, READ_OWNED_COUNTS, READ_TURN_COUNTS
from polos.journal.workers import READ_WORKER_DETAILS, worker_details
from polos.settings import Settings

LIVE, DRAINING, SILENT = "live", "draining", "silent"
_COLOURS = {LIVE: "green", DRAINING: "yellow", SILENT: "red"}
_KEPT_OUT = ("lock_key", "draining", "now")


def list_workers(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """List the workers of this database: what they offer, when they were last heard of, what they do."""
    settings = Settings.from_environment()
    with reading() as journal:
        workers = read_workers(journal, silence_limit_seconds=settings.silence_limit_seconds)
    if as_json:
        typer.echo(json.dumps(workers, indent=2, ensure_ascii=False))
    elif workers:
        list_console().print(_table(workers))
    else:
        typer.echo("No workers. Start one with: polos worker my_module")


def read_workers(journal: Connection, *, silence_limit_seconds: float) -> list[dict[str, Any]]:
    """Return every registered worker as JSON data, the oldest first.

    Besides the columns of the journal: ``state`` (live, draining or silent), ``beat_age_seconds``,
    ``definitions`` (kind and name), ``executing`` and ``waiting`` (runs it owns, by whether a turn or child
    of theirs is under way), ``turns`` (model calls it makes).
    """
    owned = {(owner, waits): count for owner, waits, count in journal.read(READ_OWNED_COUNTS, {})}
    turns: dict[str, int] = dict(journal.read(READ_TURN_COUNTS, {}))
    offered = _offered(journal)
    workers = []
    for row in journal.read(READ_WORKER_DETAILS, {}):
        worker = worker_details(row)
        silent_seconds = worker["now"] - worker["beat_at"]
        columns = {name: value for name, value in worker.items() if name not in _KEPT_OUT}
        workers.append(
            {
                **columns,
                "routes": worker["routes"].split(",") if worker["routes"] else [],
                "state": _state(worker, silent_seconds > silence_limit_seconds),
                "beat_age_seconds": round(silent_seconds, 3),
                "definitions": offered.get(worker["id"], []),
                "executing": owned.get((worker["id"], 0), 0),
                "waiting": owned.get((worker["id"], 1), 0),
                "turns": turns.get(worker["id"], 0),
            }
        )
    return workers


def _offered(journal: Connection) -> dict[str, list[dict[str, str]]]:
    offered: dict[str, list[dict[str, str]]] = {}
    for worker_id, kind, name in journal.read(READ_DEFINITIONS, {}):
        offered.setdefault(worker_id, []).append({"kind": kind, "name": name})
    return offered


def _state(worker: dict[str, Any], is_silent: bool) -> str:
    if is_silent:
        return SILENT
    return DRAINING if worker["draining"] else LIVE


def _table(workers: Iterable[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for heading in ("node", "pid", "kind", "state", "beat", "deployment", "routes", "slots"):
        table.add_column(heading, no_wrap=heading in {"pid", "kind", "state", "slots"}, overflow="fold")
    for heading in ("executing", "waiting", "turns"):
        table.add_column(heading, justify="right")
    table.add_column("offers", overflow="fold")
    for worker in workers:
        table.add_row(
            Text(worker["hostname"]),
            str(worker["pid"]),
            worker["kind"],
            Text(worker["state"], style=_COLOURS[worker["state"]]),
            f"{age(worker['beat_age_seconds'])} ago",
            Text(f"{worker['project']}/{worker['deployment']}"),
            Text(", ".join(worker["routes"])),
            str(worker["concurrency"]),
            str(worker["executing"] or ""),
            str(worker["waiting"] or ""),
            str(worker["turns"] or ""),
            Text(", ".join(each["name"] for each in worker["definitions"])),
        )
    return table
