"""`polos queues`: limits of queues, who holds slots, who waits; and changing that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from polos.cli.cells import list_console
from polos.cli.journal import find_database
from polos.errors import ConfigurationError
from polos.queues import Queue, QueueInfo
from polos.settings import Settings

app = typer.Typer(
    help="Queues: their limits, and what waits for them. Without a command, list them.",
    invoke_without_command=True,
)
MOST_LINES = 10  # of keys below a queue
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the queue.")]
ProjectOption = Annotated[str | None, typer.Option(metavar="PROJECT", help="Default: POLOS_PROJECT_ID.")]
DeploymentOption = Annotated[
    str | None, typer.Option(metavar="DEPLOYMENT", help="Default: POLOS_DEPLOYMENT_ID.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def show_queues(ctx: typer.Context, project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List the queues that have limits, or runs that wait to be admitted."""
    if ctx.invoked_subcommand is None:
        list_queues(project, as_json)


@app.command("list")
def list_queues(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List the queues that have limits, or runs that wait to be admitted."""
    from polos.journal.queue_lists import list_queues as listed

    with _journal() as journal:
        queues = listed(journal, project or Settings.from_environment().project_id)
    if as_json:
        typer.echo(json.dumps([queue.model_dump() for queue in queues], indent=2, ensure_ascii=False))
    elif queues:
        list_console().print(_table(queues))
    else:
        typer.echo("No queue has limits, and nothing waits to be admitted.")


@app.command("set")
def set_limits(
    name: NameArgument,
    limit: Annotated[int | None, typer.Option(help="Runs at once with one concurrency key.")] = None,
    no_limit: Annotated[bool, typer.Option("--no-limit", help="Any number of runs at once.")] = False,
    rate: Annotated[int | None, typer.Option(help="Runs begun in --seconds.")] = None,
    seconds: Annotated[float, typer.Option(help="What --rate counts over.")] = 1.0,
    no_rate: Annotated[bool, typer.Option("--no-rate", help="Runs begin as soon as they may.")] = False,
    hold: Annotated[
        bool | None, typer.Option("--hold/--no-hold", help="Whether a run keeps its slot while it waits.")
    ] = None,
    project: ProjectOption = None,
    deployment: DeploymentOption = None,
) -> None:
    """Change the limits of a queue, which is made if there is none. It counts from the next start on.

    They stand until code that declares other limits than before is deployed.
    """
    changes = _changes(name, limit, no_limit, rate, seconds, no_rate, hold)
    if not changes:
        raise ConfigurationError(
            "Nothing to change: give --limit, --no-limit, --rate, --no-rate, --hold or --no-hold"
        )
    _change(name, changes, project, deployment)
    typer.echo(f"Queue {name!r}: {_said(changes)}.")


def _changes(
    name: str,
    limit: int | None,
    no_limit: bool,
    rate: int | None,
    seconds: float,
    no_rate: bool,
    hold: bool | None,
) -> dict[str, Any]:
    if (limit is not None and no_limit) or (rate is not None and no_rate):
        raise ConfigurationError("A limit cannot be set and lifted at once: leave one of them out")
    try:
        Queue(name, limit, rate_limit=rate, rate_seconds=seconds)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    changes: dict[str, Any] = {}
    if limit is not None or no_limit:
        changes["concurrency_limit"] = limit
    if rate is not None or no_rate:
        changes |= {"rate_limit": rate, "rate_seconds": None if rate is None else seconds}
    if hold is not None:
        changes["hold_while_waiting"] = int(hold)
    return changes


def _said(changes: dict[str, Any]) -> str:
    return ", ".join(f"{name} {'none' if value is None else value}" for name, value in changes.items())


@app.command("pause")
def pause_queue(
    name: NameArgument, project: ProjectOption = None, deployment: DeploymentOption = None
) -> None:
    """Begin no more runs of a queue. Those that have begun go on."""
    _change(name, {"is_paused": 1}, project, deployment)
    typer.echo(f"Queue {name!r} is paused. Go on with: polos queues resume {name}")


@app.command("resume")
def resume_queue(
    name: NameArgument, project: ProjectOption = None, deployment: DeploymentOption = None
) -> None:
    """Begin runs of a paused queue again."""
    _change(name, {"is_paused": 0}, project, deployment)
    typer.echo(f"Queue {name!r} goes on.")


def _change(name: str, changes: dict[str, Any], project: str | None, deployment: str | None) -> None:
    from polos.journal.queues import set_queue

    settings = Settings.from_environment()
    unit = set_queue(project or settings.project_id, deployment or settings.deployment_id, name, changes)
    with _journal() as journal:
        journal.commit([unit])


@contextmanager
def _journal() -> Iterator[Any]:
    """Open the journal of this environment; it is created if there is none, for limits may come first."""
    from polos.journal import schema

    database = find_database(Settings.from_environment())
    schema.prepare(database)
    journal = database.connect()
    try:
        yield journal
    finally:
        journal.close()


def _table(queues: list[QueueInfo]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for heading in ("queue", "deployment", "limit", "rate", "held", "pending", "oldest waits", ""):
        table.add_column(heading, overflow="fold")
    for queue in queues:
        table.add_row(
            Text(queue.name),
            Text(queue.deployment_id),
            "none" if queue.concurrency_limit is None else str(queue.concurrency_limit),
            "none" if queue.rate_limit is None else f"{queue.rate_limit} in {queue.rate_seconds:g} s",
            str(queue.held),
            str(queue.pending),
            "" if queue.oldest_pending_seconds is None else f"{queue.oldest_pending_seconds:.0f} s",
            Text("paused", style="yellow") if queue.is_paused else "",
        )
        for lane in queue.keys[:MOST_LINES]:
            if lane.concurrency_key is not None:
                table.add_row(
                    Text(f"  {lane.concurrency_key}"), "", "", "", str(lane.held), str(lane.pending), "", ""
                )
    return table
