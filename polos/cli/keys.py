"""`polos keys`: API keys of the HTTP API, each of one project."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from polos.cli.cells import list_console, moment
from polos.cli.journal import find_database
from polos.errors import ConfigurationError
from polos.registry import MAX_ID_CHARACTERS
from polos.serialization import is_storable
from polos.settings import Settings

app = typer.Typer(help="API keys of 'polos server'.", no_args_is_help=True)
ProjectOption = Annotated[
    str | None, typer.Option(metavar="PROJECT", help="Whose key it is; default: POLOS_PROJECT_ID.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What it is for, such as 'shop backend'.")],
    project: ProjectOption = None,
    admin: Annotated[bool, typer.Option("--admin", help="May also manage keys of its project.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it. It is shown this once; only a digest of it is kept."""
    from polos.journal.keys import issue

    project = project or Settings.from_environment().project_id
    _check(name, "name of a key")
    _check(project, "id of a project")
    with _journal() as journal:
        key, secret = issue(journal, project, name, is_admin=admin)
    if as_json:
        typer.echo(json.dumps({**_shown(key), "key": secret}, indent=2, ensure_ascii=False))
    else:
        typer.echo(secret)
        typer.echo(f"Key {key.id} of project {project!r}. It is not shown again: keep it now.", err=True)


@app.command("list")
def list_keys(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """List the live keys of a project, or of all projects."""
    from polos.journal.keys import listed

    with _journal() as journal:
        keys = listed(journal, project)
    if as_json:
        typer.echo(json.dumps([_shown(key) for key in keys], indent=2, ensure_ascii=False))
    elif keys:
        list_console().print(_table(keys))
    else:
        typer.echo("No API keys. Make one with: polos keys create NAME --project PROJECT")


@app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As 'polos keys list' shows it.")],
) -> None:
    """End a key at once and for good."""
    from polos.journal.keys import listed, revoke

    with _journal() as journal:
        found = [key for key in listed(journal, None) if key.id == key_id]
        if not found or not revoke(journal, key_id, project=found[0].project):
            raise ConfigurationError(
                f"There is no live key {key_id!r}; 'polos keys list' shows those there are"
            )
    typer.echo(f"Key {key_id} ({found[0].name}) of project {found[0].project!r} is revoked.")


def _check(text: str, what: str) -> None:
    if not (text.strip() and len(text) <= MAX_ID_CHARACTERS and is_storable(text)):
        raise ConfigurationError(
            f"{text[:80]!r} cannot be the {what}: give 1 to {MAX_ID_CHARACTERS} characters, none of them NUL"
        )


@contextmanager
def _journal() -> Iterator[Any]:
    """Open the journal of this environment; it is created if there is none, for keys may come first."""
    from polos.journal import schema

    database = find_database(Settings.from_environment())
    schema.prepare(database)
    journal = database.connect()
    try:
        yield journal
    finally:
        journal.close()


def _shown(key: Any) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(key).items() if name != "revoked_at"}


def _table(keys: list[Any]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for heading in ("id", "project", "name", "ends in", "admin", "created", "last used"):
        table.add_column(heading, overflow="fold")
    for key in keys:
        table.add_row(
            key.id,
            Text(key.project),
            Text(key.name),
            Text(key.last_four_digits),
            "yes" if key.is_admin else "",
            moment(key.created_at),
            moment(key.last_used_at) if key.last_used_at else "never",
        )
    return table
