"""`polos db`: the schema of the database."""

from __future__ import annotations

import typer

from polos.cli.journal import find_database
from polos.embedded.home import open_home
from polos.journal import schema
from polos.settings import Settings

app = typer.Typer(help="Create, check and upgrade the database schema.", no_args_is_help=True)


@app.command("upgrade")
def upgrade() -> None:
    """Create the schema, or move it forward to what this version of polos needs."""
    settings = Settings.from_environment()
    if not settings.database_url:
        open_home(settings.home)
    database = find_database(settings)
    found = schema.upgrade(database)
    if found == schema.HEAD:
        typer.echo(f"{database} is up to date (revision {schema.HEAD})")
    elif found is None:
        typer.echo(f"{database}: created revision {schema.HEAD}")
    else:
        typer.echo(f"{database}: upgraded from revision {found} to {schema.HEAD}")


@app.command("check")
def check() -> None:
    """Say whether the schema is the one this version of polos needs; exit code 2 when it is not."""
    database = find_database(Settings.from_environment())
    schema.check(database)
    typer.echo(f"{database} is up to date (revision {schema.HEAD})")
