"""`polos runs`: what the journal says about a run."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from polos import serialization
from polos.cli.journal import reading
from polos.cli.run_view import print_run
from polos.errors import ConfigurationError
from polos.journal.children import READ_TREE, tree_record
from polos.journal.database import Connection
from polos.journal.runs import READ_RUN, run_record, unblock_run
from polos.journal.steps import READ_STEP_DETAILS, step_details
from polos.journal.workers import READ_WORKER_DETAILS, worker_details

app = typer.Typer(help="Look at runs, and queue blocked ones again.", no_args_is_help=True)

_VALUES = ("input", "initial_state", "final_state", "output", "failures")  # JSON text in the journal


@app.command("show")
def show(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the run, its execution_id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Show a run: its state, its steps, and the runs it started."""
    with reading() as journal:
        found = read_run(journal, run_id)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print_run(Console(), found)


@app.command("unblock")
def unblock(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the run, its execution_id.")],
) -> None:
    """Queue a blocked run again, after its code was mended."""
    with reading() as journal:
        [rows] = journal.commit([unblock_run(run_id)])
        if not rows:
            status = read_run(journal, run_id)["run"]["status"]
            raise ConfigurationError(f"Run {run_id} is {status}, not blocked; nothing was changed")
    typer.echo(f"Run {run_id} is queued again.")


def read_run(journal: Connection, run_id: str) -> dict[str, Any]:
    """Return ``{"run", "steps", "children", "workers"}`` of a run as JSON data, by the journal's own names.

    Times are seconds since the epoch. ``workers`` has the node names of those that live, by their id.

    Raises:
        ConfigurationError: There is no such run.
    """
    rows = journal.read(READ_RUN, {"run": run_id})
    if not rows:
        raise ConfigurationError(
            f"There is no run {run_id!r} in this database; POLOS_DATABASE_URL may name another"
        )
    run = _decoded(run_record(rows[0]))
    steps = journal.read(READ_STEP_DETAILS, {"run": run_id})
    tree = journal.read(READ_TREE, {"root": run["root_id"]})
    workers = [worker_details(row) for row in journal.read(READ_WORKER_DETAILS, {})]
    return {
        "run": run,
        "steps": [_decoded(step_details(row)) for row in steps],
        "children": _children([tree_record(row) for row in tree], run_id),
        "workers": {worker["id"]: worker["hostname"] for worker in workers},
    }


def _children(tree: list[dict[str, Any]], parent_id: str) -> list[dict[str, Any]]:
    """Return the runs below one, each with its own ``children``."""
    below: dict[str | None, list[dict[str, Any]]] = {}
    for run in tree:
        run["children"] = below.setdefault(run["id"], [])
        below.setdefault(run["parent_id"], []).append(run)
    return below.get(parent_id, [])


def _decoded(record: dict[str, Any]) -> dict[str, Any]:
    return {name: _value(value) if name in _VALUES else value for name, value in record.items()}


def _value(text: str | None) -> Any:
    return None if text is None else serialization.loads(text)
