"""`polos usage`: what model calls used and cost."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from polos.cli.cells import dollars, list_console
from polos.cli.journal import reading
from polos.cli.runs import since_values
from polos.journal.usage import UsageQuery, read_usage
from polos.settings import Settings
from polos.usage import GROUPS, UsageReport, UsageTotals, usage_report

Group = StrEnum("Group", [(name.upper(), name) for name in GROUPS])  # type: ignore[misc]  # Typer wants an enum
_FIGURES = ("calls", "input_tokens", "cached_tokens", "output_tokens")


def show_usage(
    by: Annotated[Group | None, typer.Option(help="A line for each day, agent, model or session.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Calls since: 12h, 7d, or a time such as 2025-03-01T12:00.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Id of the agent that spoke.")] = None,
    model: Annotated[str | None, typer.Option(help="As provider/model.")] = None,
    session: Annotated[str | None, typer.Option(help="Runs of this session.")] = None,
    project: Annotated[str | None, typer.Option(help="Default: POLOS_PROJECT_ID.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what model calls used and cost: failed ones, judges and summaries included."""
    limits = since_values(since)
    wanted = UsageQuery(
        project or Settings.from_environment().project_id,
        by=by.value if by else None,
        since=limits.get("since"),
        since_seconds=limits.get("since_seconds"),
        agent=agent,
        model=model,
        session=session,
    )
    with reading() as journal:
        report = usage_report(read_usage(journal, wanted), grouped=by is not None)
    if as_json:
        typer.echo(json.dumps(report.model_dump(), indent=2, ensure_ascii=False))
    elif report.total.calls:
        list_console().print(_table(report, by.value if by else ""))
        _tell_unpriced(report.total)
    else:
        typer.echo("No model calls. (--since and --project widen or narrow the search.)")


def _table(report: UsageReport, by: str) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column(by, overflow="fold")
    for heading in ("calls", "input", "cached", "output", "cost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(Text(row.of or "(removed runs)"), *_figures(row))
    table.add_row(Text("total", style="bold"), *_figures(report.total))
    return table


def _figures(totals: UsageTotals) -> list[str]:
    return [*(f"{getattr(totals, name):,}" for name in _FIGURES), dollars(totals.cost)]


def _tell_unpriced(total: UsageTotals) -> None:
    if total.unpriced_calls:
        typer.echo(
            f"{total.unpriced_calls:,} of the calls are not in the cost, for nobody lists a price. "
            "POLOS_MODEL_PRICES names a file with prices of your own."
        )
