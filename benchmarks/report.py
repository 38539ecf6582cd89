"""Results for people: polos beside its goals and floors, and what a unit of work costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

COSTS = {
    "transactions": "transactions",
    "statements": "statements",
    "client_statements": "of client",
    "messages": "messages",
    "redis_commands": "Redis",
    "redis_bytes": "bytes",
    "worker_cpu_ms": "CPU ms",
}


def print_tables(lines: Sequence[dict[str, Any]], console: Console) -> None:
    """Print all results; `share` is how much of the floor's speed polos has."""
    console.print(_figures(lines))
    console.print(_costs(lines))


def _figures(lines: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="medians, least and most in brackets")
    for name in ("workload", "figure", "polos", "goal", "floor", "share"):
        table.add_column(name, justify="left" if name in {"workload", "figure"} else "right")
    for line in lines:
        title = _title(line)
        for name, figure in line["figures"].items():
            floors = figure["floors"].items()
            table.add_row(
                title,
                name,
                _spread(figure["polos"]),
                "" if figure["goal"] is None else f"{figure['goal']:g}",
                "\n".join(f"{floor}: {found['median']:g}" for floor, found in floors),
                "\n".join(f"{found['share']['median']:.2f}" for _, found in floors),
            )
            title = ""
        table.add_section()
    return table


def _costs(lines: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="what one unit of work costs the workers, and their memory together")
    for name in ("workload", "unit", *COSTS.values(), "peak MB"):
        table.add_column(name, justify="left" if name in {"workload", "unit"} else "right")
    table.add_column("notes")
    for line in lines:
        costs = line["per_unit"]
        shown = [f"{costs[name]:g}" if costs else "" for name in COSTS]
        notes = ", ".join(f"{name} {value:g}" for name, value in line["notes"].items())
        table.add_row(_title(line), line["unit"], *shown, f"{line['peak_memory_mb']:.0f}", notes)
    return table


def _title(line: dict[str, Any]) -> str:
    return " ".join(part for part in (line["workload"], line["database"], line["variant"]) if part)


def _spread(summary: dict[str, Any]) -> str:
    return f"{summary['median']:g} ({summary['min']:g}-{summary['max']:g})"
