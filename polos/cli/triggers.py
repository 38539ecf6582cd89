"""`polos triggers`: workflows that events start."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from polos.cli.cells import list_console
from polos.cli.journal import reading
from polos.journal.triggers import READ_TRIGGERS, trigger_record
from polos.settings import Settings

_HIDDEN = ("last_run_id", "route", "kind")


def list_triggers(
    project: Annotated[str | None, typer.Option(metavar="PROJECT", help="Default: POLOS_PROJECT_ID.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """List the workflows that events start, and how many events each has still to read."""
    params = {"project": project or Settings.from_environment().project_id}
    with reading() as journal:
        found = [_with_pending(trigger_record(row)) for row in journal.read(READ_TRIGGERS, params)]
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif found:
        list_console().print(_table(found))
    else:
        typer.echo("No triggers. Code declares them: @workflow(trigger_on_event='orders/created')")


def _with_pending(trigger: dict[str, Any]) -> dict[str, Any]:
    columns = {name: value for name, value in trigger.items() if name not in _HIDDEN}
    return {**columns, "pending": max((trigger["head"] or 0) - trigger["cursor"], 0)}


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for heading in ("topic", "workflow", "deployment", "batch", "active", "pending"):
        table.add_column(heading, overflow="fold")
    for one in found:
        seconds = one["batch_timeout_seconds"]
        table.add_row(
            Text(one["topic"]),
            Text(one["workflow"]),
            Text(one["deployment"]),
            f"{one['batch_size']}" + (f", {seconds:g} s" if seconds else ""),
            "yes" if one["is_active"] else "",
            str(one["pending"]),
        )
    return table
