"""`polos runs`: what the journal says about runs."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console

from polos import serialization
from polos.cli.cells import list_console
from polos.cli.journal import reading
from polos.cli.run_list import Lister, run_table
from polos.cli.run_view import print_run
from polos.cli.watch import watch
from polos.errors import ConfigurationError
from polos.journal.children import READ_TREE, tree_record
from polos.journal.database import Connection
from polos.journal.listing import READ_TREE_STEPS, RunFilter, ids_beginning, tree_step
from polos.journal.retries import RETRIED
from polos.journal.runs import READ_RUN, run_record, unblock_run
from polos.journal.states import RunStatus
from polos.journal.steps import READ_STEP_DETAILS, step_details
from polos.journal.workers import READ_WORKER_DETAILS, worker_details
from polos.settings import Settings

app = typer.Typer(help="List runs, look at one, and let one go on: unblock, retry, fork.")

DEFAULT_LIMIT = 20
MIN_PREFIX_CHARACTERS = 8
SHOWN_CANDIDATES = 5
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_VALUES = ("input", "initial_state", "final_state", "output", "failures")  # JSON text in the journal
_DASHES = {8, 13, 18, 23}  # places in a UUID
RunId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help=f"Id of the run (execution_id), or its first {MIN_PREFIX_CHARACTERS} characters."
    ),
]


@app.callback(invoke_without_command=True)
def list_runs(
    context: typer.Context,
    status: Annotated[
        list[RunStatus] | None, typer.Option(help="Only runs in this state; may be given several times.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="agent, workflow or tool.")] = None,
    name: Annotated[str | None, typer.Option(help="Id of the agent, workflow or tool.")] = None,
    session: Annotated[str | None, typer.Option(help="Runs of this session.")] = None,
    user: Annotated[str | None, typer.Option(help="Runs for this user.")] = None,
    roots_only: Annotated[
        bool, typer.Option("--root-only/--all", help="Leave out, or show, runs that other runs started.")
    ] = True,
    since: Annotated[
        str | None, typer.Option(help="Created since: 30m, 1h, 2d, or a time such as 2025-03-01T12:00.")
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="What could be retried: --status failed --status cancelled.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = DEFAULT_LIMIT,
    project: Annotated[str | None, typer.Option(help="Default: POLOS_PROJECT_ID.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
    watching: Annotated[bool, typer.Option("--watch", help="Look again each second, until Ctrl-C.")] = False,
) -> None:
    """List runs, the newest first; or look at one: polos runs show ID."""
    if context.invoked_subcommand is not None:
        return
    settings = Settings.from_environment()
    wanted = RunFilter(
        project=project or settings.project_id,
        statuses=tuple(one.value for one in {*(status or ()), *(RETRIED if failed else ())}),
        kind=kind,
        name=name,
        session_id=session,
        user_id=user,
        roots_only=roots_only,
        **since_values(since),
    )
    lister = Lister(wanted, limit=limit, silence_limit_seconds=settings.silence_limit_seconds)
    if watching and as_json:
        raise ConfigurationError("--watch and --json do not go together; leave one out")
    if watching:
        watch(list_console(), lister)
    else:
        _print_list(lister, as_json=as_json)


def _print_list(lister: Lister, *, as_json: bool) -> None:
    with reading() as journal:
        runs = lister.runs(journal)
    if as_json:
        typer.echo(json.dumps(runs, indent=2, ensure_ascii=False))
    elif runs:
        console = list_console()
        console.print(run_table(runs, width=console.width))
    else:
        typer.echo("No runs. (--all adds those that other runs started; --project names another project.)")


def since_values(text: str | None) -> dict[str, float]:
    """Return the part of a filter that `--since` stands for.

    Raises:
        ConfigurationError: It is neither a duration nor a time.
    """
    if text is None:
        return {}
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip()):
        return {"since_seconds": float(found[1]) * _UNIT_SECONDS[found[2]]}
    try:
        return {"since": datetime.fromisoformat(text).timestamp()}  # local unless it names a zone
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigurationError(
            f"--since {text!r} is neither a duration such as 30m or 2d nor a time such as 2025-03-01T12:00"
        ) from error


@app.command("show")
def show(
    run_id: RunId,
    with_steps: Annotated[
        bool, typer.Option("--tree", help="Show the steps of the runs it started, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
) -> None:
    """Show a run: its state, its steps, and the runs it started."""
    with reading() as journal:
        found = read_run(journal, find_id(journal, run_id), with_steps_of_children=with_steps)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print_run(Console(), found)


@app.command("unblock")
def unblock(run_id: RunId) -> None:
    """Queue a blocked run again, after its code was mended."""
    with reading() as journal:
        run_id = find_id(journal, run_id)
        [rows] = journal.commit([unblock_run(run_id)])
        if not rows:
            status = read_run(journal, run_id)["run"]["status"]
            raise ConfigurationError(f"Run {run_id} is {status}, not blocked; nothing was changed")
    typer.echo(f"Run {run_id} is queued again.")


def find_id(journal: Connection, given: str) -> str:
    """Return the id of the run that `given` names: the whole id, or a beginning no other run has.

    Raises:
        ConfigurationError: There is no such run, or there are several.
    """
    if journal.read(READ_RUN, {"run": given}):
        return given
    found = _candidates(journal, given.lower())
    if len(found) == 1:
        return found[0]
    if found:
        others = "" if len(found) <= SHOWN_CANDIDATES else ", …"
        raise ConfigurationError(
            f"{given!r} is the beginning of several ids: {', '.join(found[:SHOWN_CANDIDATES])}{others}; "
            "give more characters"
        )
    is_short = len(given) < MIN_PREFIX_CHARACTERS and _begins_an_id(given.lower())
    hint = f"; give at least {MIN_PREFIX_CHARACTERS} characters" if is_short else ""
    raise ConfigurationError(
        f"There is no run {given!r} in this database{hint}; POLOS_DATABASE_URL may name another"
    )


def _candidates(journal: Connection, beginning: str) -> list[str]:
    if len(beginning) < MIN_PREFIX_CHARACTERS or not _begins_an_id(beginning):
        return []
    query = ids_beginning(beginning, limit=SHOWN_CANDIDATES + 1)
    return [row[0] for row in journal.read(query.statement, query.params)]


def _begins_an_id(text: str) -> bool:
    return len(text) <= 36 and all(
        (letter == "-") if place in _DASHES else (letter in "0123456789abcdef")
        for place, letter in enumerate(text)
    )


def read_run(journal: Connection, run_id: str, *, with_steps_of_children: bool = False) -> dict[str, Any]:
    """Return ``{"run", "steps", "children", "workers"}`` of a run as JSON data, by the journal's own names.

    Times are seconds since the epoch. ``workers`` has the node names of those that live, by their id. With
    the steps of children, each child has ``steps``, without their values.

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
    tree = [tree_record(row) for row in journal.read(READ_TREE, {"root": run["root_id"]})]
    if with_steps_of_children:
        _add_steps(journal, tree, run["root_id"])
    workers = [worker_details(row) for row in journal.read(READ_WORKER_DETAILS, {})]
    return {
        "run": run,
        "steps": [_decoded(step_details(row)) for row in steps],
        "children": _children(tree, run_id),
        "workers": {worker["id"]: worker["hostname"] for worker in workers},
    }


def _add_steps(journal: Connection, tree: list[dict[str, Any]], root_id: str) -> None:
    below: dict[str, list[dict[str, Any]]] = {}
    for row in journal.read(READ_TREE_STEPS, {"root": root_id}):
        step = _decoded(tree_step(row))
        below.setdefault(step["run_id"], []).append(step)
    for run in tree:
        run["steps"] = below.get(run["id"], [])


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
