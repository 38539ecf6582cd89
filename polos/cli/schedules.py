"""`polos schedules`: workflows that start by the clock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from polos.cli.cells import list_console, moment, state_cell
from polos.cli.journal import reading
from polos.cron import KEY, CatchUp, CronSchedule
from polos.errors import ConfigurationError
from polos.journal.creating import create_run
from polos.journal.database import Connection
from polos.journal.runs import NewRun
from polos.schedules import Schedule
from polos.settings import Settings
from polos.timetable import Timetable, shown

app = typer.Typer(help="Schedules: workflows that start by the clock.", no_args_is_help=True)
ProjectOption = Annotated[str | None, typer.Option(metavar="PROJECT", help="Default: POLOS_PROJECT_ID.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ScheduleId = Annotated[str, typer.Argument(metavar="ID", help="As 'polos schedules list' shows it.")]


@app.command("list")
def list_schedules(
    workflow: Annotated[str | None, typer.Option(help="Only of this workflow.")] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the schedules of a project."""
    with _timetable(project) as (timetable, _):
        found = timetable.entries(workflow)
    if as_json:
        shown_as = [one.model_dump(mode="json") for one in found]
        typer.echo(json.dumps(shown_as, indent=2, ensure_ascii=False))
    elif found:
        list_console().print(_table(found))
    else:
        typer.echo("No schedules. Make one with: polos schedules create WORKFLOW '0 8 * * MON-FRI'")


@app.command("create")
def create_schedule(
    workflow: Annotated[str, typer.Argument(help="Id of a workflow that a live worker offers.")],
    cron: Annotated[str, typer.Argument(help="Minute, hour, day, month and weekday: '0 8 * * MON-FRI'.")],
    timezone: Annotated[str, typer.Option(help="IANA name, such as Europe/Berlin.")] = "UTC",
    key: Annotated[str, typer.Option(help="Tells schedules of one workflow apart.")] = KEY,
    catch_up: Annotated[
        CatchUp, typer.Option(help="Of missed ticks: one run, a run for all, or skip.")
    ] = "one",
    project: ProjectOption = None,
) -> None:
    """Make a schedule, or change the one with this workflow and key; print its id."""
    with _timetable(project) as (timetable, _):
        typer.echo(timetable.create(workflow, CronSchedule(cron, timezone, key, catch_up)))


@app.command("pause")
def pause_schedule(schedule_id: ScheduleId, project: ProjectOption = None) -> None:
    """Start nothing more of a schedule until it is resumed."""
    with _timetable(project) as (timetable, _):
        row = timetable.pause(schedule_id)
    typer.echo(f"Schedule {schedule_id} of {row['workflow']!r} is paused.")


@app.command("resume")
def resume_schedule(schedule_id: ScheduleId, project: ProjectOption = None) -> None:
    """Let a schedule go on with its next tick."""
    with _timetable(project) as (timetable, _):
        row = timetable.resume(schedule_id)
    next_at = "never" if row["next_at"] is None else moment(row["next_at"])
    typer.echo(f"Schedule {schedule_id} of {row['workflow']!r} goes on: {next_at}.")


@app.command("delete")
def delete_schedule(schedule_id: ScheduleId, project: ProjectOption = None) -> None:
    """Forget a schedule. One that code declares comes back with the next worker; pause it instead."""
    with _timetable(project) as (timetable, _):
        schedule = shown(timetable.row(schedule_id))
        timetable.delete(schedule_id)
    typer.echo(f"Schedule {schedule_id} of {schedule.workflow_id!r} is gone.")


@app.command("trigger")
def trigger_schedule(schedule_id: ScheduleId, project: ProjectOption = None) -> None:
    """Start a run of a schedule now; print its id."""
    with _timetable(project) as (timetable, journal):
        new = NewRun(**timetable.run_now(schedule_id))
        journal.commit([create_run(new, ring_again=0.0)])  # a sweeper rings within a second
    typer.echo(new.id)


@contextmanager
def _timetable(project: str | None) -> Iterator[tuple[Timetable, Connection]]:
    """Open the schedules of a project; what is wrong with a request is told in one line."""
    settings = Settings.from_environment()
    with reading() as journal:
        timetable = Timetable(
            journal,
            project or settings.project_id,
            silence_limit_seconds=settings.silence_limit_seconds,
            place_here=lambda workflow: None,
        )
        try:
            yield timetable, journal
        except ValueError as error:
            raise ConfigurationError(str(error)) from error


def _table(found: list[Schedule]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for heading in ("id", "workflow", "key", "cron", "zone", "status", "last run", "next run"):
        table.add_column(heading, overflow="fold")
    for one in found:
        table.add_row(
            one.id,
            Text(one.workflow_id),
            Text(one.key),
            Text(one.cron),
            one.timezone,
            state_cell(one.status),
            moment(one.last_run_at.timestamp()) if one.last_run_at else "never",
            moment(one.next_run_at.timestamp()) if one.next_run_at else "",
        )
    return table
