"""Results for people: polos beside its goals and floors, and what a unit of work costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

COUNTS = {
    "transactions": "transactions",
    "statements": "statements",
    "round_trips": "round trips",
    "client_statements": "of client",
    "messages": "messages",
    "redis_commands": "Redis",
    "redis_bytes": "bytes",
    "wal_bytes": "WAL bytes",
}
USES = {
    "worker_cpu_ms": "workers ms",
    "client_cpu_ms": "client ms",
    "postgres_cpu_ms": "PostgreSQL ms",
    "valkey_cpu_ms": "Valkey ms",
}
LEFT = {"workload", "figure", "unit", "note"}
Lines = Sequence[Mapping[str, Any]]


def print_tables(lines: Lines, console: Console) -> None:
    """Print all results; `share` is how much of the floor's speed polos has."""
    console.print(_figures(lines))
    console.print(_costs(lines, "what one unit of work costs, and noise does not change", COUNTS))
    console.print(_costs(lines, "processor time of one unit of work, and memory of all workers", USES))
    console.print(_notes(lines))


def _figures(lines: Lines) -> Table:
    table = _table(
        "medians, least and most in brackets", "workload", "figure", "polos", "goal", "floor", "share"
    )
    for line in lines:
        title = _title(line)
        for name, figure in line["figures"].items():
            floors = figure["floors"].items()
            table.add_row(
                title,
                name,
                _spread(figure["polos"]),
                "" if figure["goal"] is None else f"{figure['goal']:g}",
                "\n".join(f"{floor}: {_spread(found)}" for floor, found in floors),
                "\n".join(_spread(found["share"], digits=2) for _, found in floors),
            )
            title = ""
        table.add_section()
    return table


def _costs(lines: Lines, title: str, costs: Mapping[str, str]) -> Table:
    memory = ["peak MB"] if costs is USES else []
    table = _table(title, "workload", "unit", *costs.values(), *memory)
    for line in lines:
        if found := line["per_unit"]:
            peak = [f"{line['peak_memory_mb']:.0f}"] if memory else []
            table.add_row(_title(line), line["unit"], *(f"{found[name]:g}" for name in costs), *peak)
    return table


def _notes(lines: Lines) -> Table:
    table = _table("notes", "workload", "note", "value")
    for line in lines:
        for name, value in line["notes"].items():
            table.add_row(_title(line), name, f"{value:g}")
        for name, points in line["curves"].items():
            table.add_row(_title(line), name, " ".join(f"{x:g}: {y:g}" for x, y in points))
    return table


def _table(title: str, *names: str) -> Table:
    table = Table(title=title)
    for name in names:
        table.add_column(name, justify="left" if name in LEFT else "right")
    return table


def _title(line: Mapping[str, Any]) -> str:
    return " ".join(part for part in (line["workload"], line["database"], line["variant"]) if part)


def _spread(summary: Mapping[str, Any], digits: int | None = None) -> str:
    median, least, most = (
        f"{summary[name]:g}" if digits is None else f"{summary[name]:.{digits}f}"
        for name in ("median", "min", "max")
    )
    return f"{median} ({least}-{most})"
