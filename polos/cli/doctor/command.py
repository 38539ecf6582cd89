"""The command: run every check in turn, print a line for each finding, and judge."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from polos.cli.doctor.findings import Finding, Level, bounded
from polos.settings import Settings

_COLOURS = {Level.OK: "green", Level.NOTE: "yellow", Level.WRONG: "bold red"}


def run_doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """Check what is configured, what answers, what is missing or unsafe; exit code 1 if it matters."""
    findings = examine(Settings.from_environment())
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        Console(highlight=False).print(_table(findings))
    raise typer.Exit(int(any(finding.level is Level.WRONG for finding in findings)))


def examine(settings: Settings) -> list[Finding]:
    """Return the findings of all checks, each of which gets a few seconds."""
    from polos.cli.doctor.fleet import fleet_checks  # slow: Celery, Redis
    from polos.cli.doctor.machine import machine_checks
    from polos.cli.doctor.services import service_checks

    checks = {**service_checks(settings), **fleet_checks(settings), **machine_checks(settings)}
    return [finding for subject, check in checks.items() for finding in bounded(subject, check)]


def _table(findings: Iterable[Finding]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for finding in findings:
        level = Text(finding.level, style=_COLOURS[finding.level])
        table.add_row(level, finding.subject, Text(finding.text))
        if finding.advice:
            table.add_row("", "", Text(f"→ {finding.advice}"))
    return table
