"""A run as people read it in a terminal: its row, its steps as a table, its children as a tree."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from polos.engine.execution import shown

MAX_VALUE_CHARACTERS = 2000  # of an input or output; --json shows all of it
_COLOURS = {"completed": "green", "failed": "red", "cancelled": "red", "blocked": "red", "running": "cyan"}


def print_run(console: Console, found: dict[str, Any]) -> None:
    """Print what `read_run` found."""
    run, workers = found["run"], found["workers"]
    console.print(_heading(run))
    console.print(_facts(run, workers))
    if found["steps"]:
        console.print(_steps(found["steps"], workers))
        _print_failures(console, found["steps"])
    if found["children"]:
        console.print(_tree(run, found["children"]))


def _heading(run: dict[str, Any]) -> Text:
    return Text.assemble((run["name"], "bold"), f" {run['kind']} ", _state(run["status"]), f"  {run['id']}")


def _facts(run: dict[str, Any], workers: dict[str, str]) -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in {
        "project": f"{run['project']}, deployment {run['deployment']}",
        "parent": run["parent_id"] and f"{run['parent_id']}, step {shown(run['parent_step'] or '')}",
        "session": run["session_id"],
        "user": run["user_id"],
        "worker": run["owner"] and _worker(run["owner"], workers),
        "attempts": f"{run['attempt']}{_troubles(run)}",
        "created": _moment(run["created_at"]),
        "took": _span(run["started_at"], run["finished_at"]),
        "tokens": run["total_tokens"] and f"{run['input_tokens']} in, {run['output_tokens']} out",
        "input": _shortened(run["input"]),
        "output": _shortened(run["output"]),
        "error": run["error"],
    }.items():
        if value:
            facts.add_row(name, Text(str(value), style="red" if name == "error" else ""))
    return facts


def _troubles(run: dict[str, Any]) -> str:
    words = [f"{run[name]} {name}" for name in ("retries", "crashes") if run[name]]
    return f" ({', '.join(words)})" if words else ""


def _steps(steps: list[dict[str, Any]], workers: dict[str, str]) -> Table:
    table = Table(title="Steps", title_justify="left", box=None, padding=(0, 1), header_style="dim")
    for heading in ("step", "kind", "state", "tries", "worker", "took", "tokens", "error"):
        table.add_column(heading, overflow="fold")
    for step in steps:
        table.add_row(
            Text(shown(step["name"])),
            step["kind"],
            _state(step["status"]),
            str(step["tries"] or ""),
            Text(_worker(step["owner"], workers)),
            _span(step["started_at"], step["finished_at"]),
            _tokens(step),
            Text(step["error"] or "", style="red"),
        )
    return table


def _print_failures(console: Console, steps: list[dict[str, Any]]) -> None:
    for step in steps:
        for failure in step["failures"] or []:
            text = f"{shown(step['name'])}, try {failure.get('try')}: {failure.get('error')}"
            console.print(Text(text, style="yellow"), soft_wrap=True)


def _tokens(step: dict[str, Any]) -> str:
    if step["kind"] != "turn" or step["output"] is None:
        return ""
    return str((step["output"].get("usage") or {}).get("total_tokens", ""))


def _tree(run: dict[str, Any], children: list[dict[str, Any]]) -> Tree:
    tree = Tree(Text.assemble("Runs started by ", (run["name"], "bold")))
    _add_children(tree, children)
    return tree


def _add_children(tree: Tree, children: list[dict[str, Any]]) -> None:
    for child in children:
        label = Text.assemble(
            (child["name"], "bold"),
            f" {child['kind']} ",
            _state(child["status"]),
            f"  {_span(child['started_at'], child['finished_at'])}",
            f"  attempt {child['attempt']}" if child["attempt"] > 1 else "",
            f"  {child['id']}",
            (f"  {child['error']}" if child["error"] else "", "red"),
        )
        _add_children(tree.add(label), child["children"])


def _state(status: str) -> Text:
    return Text(status, style=_COLOURS.get(status, "yellow"))


def _worker(worker_id: str | None, workers: dict[str, str]) -> str:
    """Return the node name of a worker that lives, the beginning of the id of one that is gone."""
    return "" if worker_id is None else workers.get(worker_id) or worker_id[:8]


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(sep=" ", timespec="seconds")


def _span(since: float | None, until: float | None) -> str:
    return "" if since is None or until is None else f"{max(until - since, 0.0):.2f} s"


def _shortened(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[:MAX_VALUE_CHARACTERS]}… (--json shows all)"
