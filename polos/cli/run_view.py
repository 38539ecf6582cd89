"""A run as people read it in a terminal: its row, its steps as a table, its children as a tree."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from polos.cli.cells import dollars, moment, span, state_cell, troubles, worker_name
from polos.step_names import shown

_SLOTS = {
    "deferred": "begins when there is room on its route",
    "wanted": "waits for a slot",
    "held": "has a slot",
    "released": "gave its slot up while it waits",
}
MAX_VALUE_CHARACTERS = 2000  # of an input or output; --json shows all of it


def print_run(console: Console, found: dict[str, Any]) -> None:
    """Print what `read_run` found."""
    run, workers = found["run"], found["workers"]
    console.print(_heading(run))
    console.print(_facts(found))
    if found["steps"]:
        console.print(_steps(found["steps"], workers))
        _print_failures(console, found["steps"])
    if found["children"]:
        console.print(_tree(run, found["children"]))


def _heading(run: dict[str, Any]) -> Text:
    state = state_cell(run["status"])
    return Text.assemble((run["name"], "bold"), f" {run['kind']} ", state, f"  {run['id']}")


def _facts(found: dict[str, Any]) -> Table:
    run, workers = found["run"], found["workers"]
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in {
        "project": f"{run['project']}, deployment {run['deployment']}",
        "parent": run["parent_id"] and f"{run['parent_id']}, step {shown(run['parent_step'] or '')}",
        "session": run["session_id"],
        "user": run["user_id"],
        "queue": _queue(run),
        "worker": run["owner"] and worker_name(run["owner"], workers),
        "attempts": f"{run['attempt']}{troubles(run)}",
        "created": moment(run["created_at"]),
        "took": span(run["started_at"], run["finished_at"]),
        "tokens": _all_tokens(found),
        "cost": _all_cost(found),
        "input": _shortened(run["input"]),
        "output": _shortened(run["output"]),
        "error": run["error"],
    }.items():
        if value:
            facts.add_row(name, Text(str(value), style="red" if name == "error" else ""))
    return facts


def _queue(run: dict[str, Any]) -> str | None:
    """Return in which queue a run waits, or has a slot; None where there is nothing to tell."""
    if run["slot"] is None:
        return None
    key = f", key {run['concurrency_key']!r}" if run["concurrency_key"] else ""
    return f"{run['queue']}{key}: {_SLOTS.get(run['slot'], run['slot'])}; see: polos queues"


def _steps(steps: list[dict[str, Any]], workers: dict[str, str]) -> Table:
    table = Table(title="Steps", title_justify="left", box=None, padding=(0, 1), header_style="dim")
    for heading in ("step", "kind", "state", "tries", "worker", "took", "tokens", "cost", "error"):
        table.add_column(heading, overflow="fold")
    for step in steps:
        table.add_row(
            Text(shown(step["name"])),
            Text(_kind(step)),
            state_cell(step["status"]),
            str(step["tries"] or ""),
            Text(worker_name(step["owner"], workers)),
            span(step["started_at"], step["finished_at"]),
            _tokens(step),
            dollars(step["cost"]),
            Text(step["error"] or "", style="red") if not _waits(step) else Text(_waits(step)),
        )
    return table


def _kind(step: dict[str, Any]) -> str:
    """Return what a step is, and for an answered turn, which model answered."""
    answer = step["output"] if step["kind"] == "turn" else None
    if not isinstance(answer, dict) or not answer.get("model"):
        return str(step["kind"])
    return f"turn, {'/'.join(filter(None, (answer.get('provider'), answer['model'])))}"


def _waits(step: dict[str, Any]) -> str:
    """Return for when a turn waits whose model has a limit; nothing for any other step."""
    if step["status"] != "scheduled" or step["ticket"] is None or step["not_before"] is None:
        return ""
    return f"waits for the limit of its model until {moment(step['not_before'])}; see: polos limits"


def _print_failures(console: Console, steps: list[dict[str, Any]]) -> None:
    for step in steps:
        for failure in step["failures"] or []:
            text = f"{shown(step['name'])}, try {failure.get('try')}: {failure.get('error')}"
            console.print(Text(text, style="yellow"), soft_wrap=True)


def _all_tokens(found: dict[str, Any]) -> str:
    """Return the tokens of the run's own turns, whether or not it has ended, and those of its children."""
    turns = [step for step in found["steps"] if step["calls"]]
    words = []
    if turns:
        given = sum(turn["input_tokens"] for turn in turns)
        got = sum(turn["output_tokens"] for turn in turns)
        words.append(f"{given} in, {got} out in {len(turns)} turn{'s' * (len(turns) != 1)}")
    if below := sum(child["total_tokens"] for child in _below(found["children"])):
        words.append(f"{below} in the runs it started")
    return "; ".join(words)


def _all_cost(found: dict[str, Any]) -> str:
    """Return the cost of the run's own turns, and those of its children."""
    words = []
    if (own := _sum_of_costs(found["steps"])) is not None:
        words.append(dollars(own))
    if (below := _sum_of_costs(_below(found["children"]))) is not None:
        words.append(f"{dollars(below)} in the runs it started")
    if unpriced := sum(step["unpriced_calls"] for step in found["steps"]):
        words.append(f"{unpriced} call{'s' * (unpriced != 1)} without a known price")
    return "; ".join(words)


def _sum_of_costs(rows: Iterable[dict[str, Any]]) -> float | None:
    costs = [row["cost"] for row in rows if row["cost"] is not None]
    return sum(costs) if costs else None


def _below(children: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [run for child in children for run in (child, *_below(child["children"]))]


def _tokens(step: dict[str, Any]) -> str:
    return f"{step['input_tokens']} in, {step['output_tokens']} out" if step["calls"] else ""


def _tree(run: dict[str, Any], children: list[dict[str, Any]]) -> Tree:
    tree = Tree(Text.assemble("Runs started by ", (run["name"], "bold")))
    _add_children(tree, children)
    return tree


def _add_children(tree: Tree, children: list[dict[str, Any]]) -> None:
    for child in children:
        label = Text.assemble(
            (child["name"], "bold"),
            f" {child['kind']} ",
            state_cell(child["status"]),
            f"  {span(child['started_at'], child['finished_at'])}",
            f"  {child['total_tokens']} tokens" if child["total_tokens"] else "",
            f"  {dollars(child['cost'])}" if child["cost"] is not None else "",
            f"  attempt {child['attempt']}" if child["attempt"] > 1 else "",
            f"  {child['id']}",
            (f"  {child['error']}" if child["error"] else "", "red"),
        )
        branch = tree.add(label)
        for step in child.get("steps", ()):
            branch.add(_step_label(step))
        _add_children(branch, child["children"])


def _step_label(step: dict[str, Any]) -> Text:
    tries = f"  {step['tries']} tries" if step["tries"] > 1 else ""
    told = (span(step["started_at"], step["finished_at"]), _tokens(step), dollars(step["cost"]))
    return Text.assemble(
        (f"{shown(step['name'])} {step['kind']} ", "dim"),
        state_cell(step["status"]),
        ("  ".join(["", *filter(None, told)]) + tries, "dim"),
        (f"  {step['error']}" if step["error"] else "", "red"),
    )


def _shortened(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[:MAX_VALUE_CHARACTERS]}… (--json shows all)"
