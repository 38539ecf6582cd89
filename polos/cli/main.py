"""The entry point of the `polos` command, and what it says when a setting or a server is wrong."""

from __future__ import annotations

from typing import Any

import typer
from dotenv import load_dotenv
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

import polos
from polos.cli import (
    approvals,
    db,
    demo,
    encryption,
    flower,
    gc,
    keys,
    limits,
    queues,
    replay,
    runs,
    runs_again,
    schedules,
    server,
    sessions,
    triggers,
    usage,
    worker,
    workers,
)
from polos.cli.doctor import command as doctor
from polos.errors import ConfigurationError, ServiceUnavailableError


class Commands(TyperGroup):
    """The commands. What only the user can put right is told in one message, with exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        load_dotenv(".env")
        try:
            return super().invoke(ctx)
        except (ConfigurationError, ServiceUnavailableError) as error:
            Console(stderr=True).print(Text(f"Error: {error}", style="red"), soft_wrap=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=Commands,
    help="Durable AI agents on Celery.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its frames may show what must not be shown
)
app.command("worker")(worker.run_worker)
app.command("server")(server.run_server)
app.add_typer(keys.app, name="keys")
app.add_typer(db.app, name="db")
app.add_typer(encryption.app, name="encryption")
runs.app.command("retry")(runs_again.retry)
runs.app.command("fork")(runs_again.fork)
runs.app.command("stuck")(runs_again.stuck)
runs.app.command("export")(replay.export)
runs.app.command("replay")(replay.replay)
app.add_typer(runs.app, name="runs")
app.add_typer(approvals.app, name="approvals")
app.add_typer(queues.app, name="queues")
app.add_typer(schedules.app, name="schedules")
app.add_typer(sessions.app, name="sessions")
app.command("triggers")(triggers.list_triggers)
app.command("workers")(workers.list_workers)
app.command("limits")(limits.show_limits)
app.command("usage")(usage.show_usage)
app.command("gc")(gc.remove_old)
app.command("doctor")(doctor.run_doctor)
app.command("flower")(flower.run_flower)
app.command("demo")(demo.run_demo)


@app.command("version")
def print_version() -> None:
    """Print the version of polos."""
    typer.echo(polos.__version__)


if __name__ == "__main__":
    app()
