from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from benches import Bench, open_bench
from typer.testing import CliRunner, Result

from polos.cli.main import app

PROGRAM = """
import asyncio
from polos import Polos, StepExecutionError, WorkflowContext, workflow

@workflow
async def child(ctx: WorkflowContext, input: dict):
    return {"length": await ctx.step.run("measure", lambda: len(input["word"]))}

@workflow
async def broken(ctx: WorkflowContext, input: dict):
    raise StepExecutionError("the [bold]word[/bold] is missing")

@workflow
async def parent(ctx: WorkflowContext, input: dict):
    measured = await ctx.step.invoke_and_wait("ask-child", child, input)
    await ctx.step.run("nap", asyncio.sleep, 0.1)
    try:
        await ctx.step.invoke_and_wait("ask-broken", broken, {})
    except StepExecutionError:
        pass
    return measured

async def main():
    async with Polos() as polos:
        handle = await parent.invoke(polos, {"word": "seven"})
        record = await polos.wait(handle.id, timeout_seconds=30)
        print(handle.id)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def home() -> Iterator[tuple[Bench, str]]:
    """A folder in which a run has completed, and that run's id."""
    with open_bench() as bench:
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=bench.folder,
            env=bench.environment({}),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        yield bench, ran.stdout.split()[-1]


@pytest.fixture
def run_id(home: tuple[Bench, str], monkeypatch: pytest.MonkeyPatch) -> str:
    bench, run_id = home
    monkeypatch.chdir(bench.folder)
    monkeypatch.setenv("COLUMNS", "200")
    for name in [name for name in os.environ if name.startswith("POLOS_")]:
        monkeypatch.delenv(name)
    return run_id


def show(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["runs", "show", *arguments])


def line_with(text: str, output: str) -> str:
    return next(line for line in output.splitlines() if text in line)


def test_run_is_shown_with_state_and_output(run_id: str) -> None:
    shown = show(run_id)
    assert shown.exit_code == 0
    assert shown.output.startswith(f"parent workflow completed  {run_id}")
    assert '{"length": 5}' in line_with("output", shown.output)


def test_steps_are_shown_with_their_states(run_id: str) -> None:
    output = show(run_id).output
    assert "completed" in line_with("ask-child", output)
    assert "failed" in line_with("ask-broken", output)


def test_errors_are_shown_as_they_are_written(run_id: str) -> None:
    assert "the [bold]word[/bold] is missing" in line_with("ask-broken", show(run_id).output)


def test_children_are_shown_as_a_tree(run_id: str) -> None:
    _, _, tree = show(run_id).output.partition("Runs started by parent")
    assert "child workflow completed" in tree
    assert "broken workflow failed" in tree


def test_json_has_the_run_its_steps_and_its_children(run_id: str) -> None:
    found = json.loads(show(run_id, "--json").output)
    assert (found["run"]["id"], found["run"]["status"]) == (run_id, "completed")
    assert found["run"]["input"] == {"word": "seven"}
    assert {step["name"]: step["status"] for step in found["steps"]} == {
        "ask-child": "completed",
        "nap": "completed",
        "ask-broken": "failed",
    }
    assert {child["name"]: child["status"] for child in found["children"]} == {
        "child": "completed",
        "broken": "failed",
    }


def test_step_inside_the_run_tells_how_long_it_took(run_id: str) -> None:
    [nap] = [step for step in json.loads(show(run_id, "--json").output)["steps"] if step["name"] == "nap"]
    assert nap["finished_at"] - nap["started_at"] > 0.09


def test_tree_has_the_steps_of_children(run_id: str) -> None:
    _, _, tree = show(run_id, "--tree").output.partition("Runs started by parent")
    assert "measure run completed" in tree
    assert "measure" not in show(run_id).output


def test_json_with_the_tree_has_the_steps_of_children(run_id: str) -> None:
    children = json.loads(show(run_id, "--json", "--tree").output)["children"]
    assert {child["name"]: [step["name"] for step in child["steps"]] for child in children} == {
        "child": ["measure"],
        "broken": [],
    }


def test_child_is_shown_with_its_own_steps_and_parent(run_id: str) -> None:
    children = json.loads(show(run_id, "--json").output)["children"]
    [child_id] = [child["id"] for child in children if child["name"] == "child"]
    output = show(child_id).output
    assert run_id in line_with("parent", output)
    assert "completed" in line_with("measure", output)


def test_unknown_run_is_named(run_id: str) -> None:
    shown = show("no-such-run")
    assert (shown.exit_code, "'no-such-run'" in shown.output) == (2, True)


def test_folder_without_database_is_left_as_it_is(
    tmp_path: Path, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert show(run_id).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_blocked_run_is_queued_again(home: tuple[Bench, str], monkeypatch: pytest.MonkeyPatch) -> None:
    bench, run_id = home
    monkeypatch.setenv("POLOS_HOME", str(bench.home))
    changed(bench, "UPDATE run SET status = 'blocked', error = 'x' WHERE id = ?", run_id)
    answer = CliRunner().invoke(app, ["runs", "unblock", run_id])
    assert (answer.exit_code, answer.output) == (0, f"Run {run_id} is queued again.\n")
    assert changed(bench, "SELECT status, error FROM run WHERE id = ?", run_id) == [("queued", None)]
    again = CliRunner().invoke(app, ["runs", "unblock", run_id])
    assert again.exit_code == 2
    changed(bench, "UPDATE run SET status = 'completed', ring_at = NULL WHERE id = ?", run_id)


def changed(bench: Bench, statement: str, run_id: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(bench.home / "polos.db", isolation_level=None)) as journal:
        return journal.execute(statement, (run_id,)).fetchall()
