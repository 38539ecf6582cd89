"""`polos runs export` and `polos runs replay`, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from written import Written, polos

from polos.encryption import codec_of
from polos.errors import EncryptionError
from polos.journal import schema
from polos.journal.database import Database
from polos.journal.exports import export, read_export, restore
from polos.journal.states import StepStatus
from polos.journal.steps import Outcome, record_step
from polos.registry import _definitions
from polos.settings import Settings
from polos.worker.replays import replay_export

FLOW = """
from polos import WorkflowContext, workflow


@workflow(id="replayed-by-command")
async def flow(ctx: WorkflowContext):
    for name in {names}:
        await ctx.step.run(name, print, "executed")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the program is, which each test writes as it likes."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "replayed_program", raising=False)
    monkeypatch.delitem(_definitions, "replayed-by-command", raising=False)
    return tmp_path


@pytest.fixture
def run_id(journal: Written) -> str:
    """A live run with two recorded steps."""
    claim = journal.claimed(journal.run("replayed-by-command"))
    for position, name in enumerate(("a", "b")):
        done = Outcome(StepStatus.COMPLETED, output='"done"')
        assert journal.do(
            record_step(claim.id, claim.attempt, name, "run", done, position=position, tries=1, worker="w1")
        )
    return claim.id


def written(*names: str) -> str:
    """Write the program with steps of these names; return the name of its module."""
    Path("replayed_program.py").write_text(FLOW.format(names=list(names)))
    return "replayed_program"


def test_code_that_fits_passes_and_nothing_is_executed(run_id: str) -> None:
    said = polos("runs", "replay", run_id[:8], "--import", written("a", "b", "c"))
    assert said.exit_code == 0
    assert f"goes_on    {run_id} replayed-by-command (running): the code begins ['c']" in said.output
    assert "1 runs: 0 same, 1 goes_on, 0 other_end, 0 deviates" in said.output
    assert "executed" not in said.output


def test_code_that_would_block_the_run_fails_with_the_steps(run_id: str) -> None:
    said = polos("runs", "replay", "--import", written("a", "new", "b"), "--json")
    assert said.exit_code == 1
    [found] = json.loads(said.output)
    assert (found["run_id"], found["verdict"]) == (run_id, "deviates")
    assert "'new'" in found["reason"]


def test_newest_runs_of_one_name_are_replayed_without_an_id(journal: Written, run_id: str) -> None:
    journal.run("another-flow")
    said = polos("runs", "replay", "--name", "replayed-by-command", "--import", written("a", "b"), "--json")
    assert [found["run_id"] for found in json.loads(said.output)] == [run_id]


def test_an_exported_run_is_replayed_without_its_database(run_id: str, journal: Written) -> None:
    others = journal.run("another-flow")
    said = polos("runs", "export", run_id[:8], "--output", "runs.jsonl.gz")
    assert (said.exit_code, said.output) == (0, "runs.jsonl.gz: 1 runs, 2 steps\n")
    assert others not in str(read_export(Path("runs.jsonl.gz")))

    said = polos("runs", "replay", "--file", "runs.jsonl.gz", "--import", written("a"))
    assert said.exit_code == 1
    assert "['b']" in said.output


def test_all_is_exported_but_keys(journal: Written, run_id: str) -> None:
    assert polos("keys", "create", "mine").exit_code == 0
    lines = [json.loads(line) for line in polos("runs", "export", "--all").output.splitlines()]
    assert lines[0]["polos_journal"] == 1
    assert {table for line in lines[1:] for table in line} >= {"run", "step"}
    assert not any("api_key" in line for line in lines)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["export"], "Name the runs to export, or give --all"),
        (["export", "--all", "5b0c54f6"], "Name the runs to export, or give --all"),
        (["export", "5b0c54f6"], "There is no run"),
        (["replay"], "name its modules"),
        (["replay", "--import", "no_such_module"], "'no_such_module' cannot be imported"),
        (["replay", "--import", "json", "--file", "nothing.gz"], "'nothing.gz' cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said(journal: Written, command: list[str], problem: str) -> None:
    said = polos("runs", *command)
    assert said.exit_code == 2
    assert problem in said.output.replace("\n", " ")


KEYS = "k1:" + base64.b64encode(bytes(range(32))).decode()
HEAD = '{"polos_journal": 1, "schema": "0008", "polos": "0.1.0"}\n'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\x1f\x8bbroken", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"hello\n", "line 1: not a row"),
        (b'{"run": {}}\n', "is no journal"),
        (b'{"polos_journal": 2, "schema": "0008", "polos": "9"}\n', "has format 2"),
        (b'{"polos_journal": 1, "schema": "9999", "polos": "9"}\n', "revision '9999'"),
        (HEAD.encode() + b"nonsense\n", "line 2: not a row"),
        (HEAD.encode() + b'{"table": {"x": 1}}\n', "has rows of 'table'"),
        (HEAD.encode() + b'{"run": {"x": 1}}\n', "has run.x"),
        (HEAD.encode() + b'{"run": {"id": "x"}}\n', "does not fit"),
        (HEAD.encode() + b'{"run": 7}\n', "line 2: not a row"),
    ],
)
def test_a_file_that_is_no_export_is_refused(content: bytes, problem: str) -> None:
    Path("runs.jsonl").write_bytes(content)
    said = polos("runs", "replay", "--import", "json", "--file", "runs.jsonl")
    assert said.exit_code == 2, said.output
    assert problem in said.output.replace("\n", " ")


def test_nothing_is_restored_into_a_database_that_is_in_use(journal: Written, run_id: str) -> None:
    polos("runs", "export", run_id, "--output", "runs.jsonl")
    with pytest.raises(ValueError, match="is not empty"):
        restore(read_export(Path("runs.jsonl")), _database(journal))


def test_exports_of_an_encrypted_journal_are_replayed_without_its_key(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'journal.db'}", codec=codec_of(KEYS))
    schema.prepare(database)
    journal = Written(database)
    claim = journal.claimed(journal.run("replayed-by-command"))
    done = Outcome(StepStatus.COMPLETED, output='"a secret"')
    journal.do(record_step(claim.id, claim.attempt, "a", "run", done, position=0, tries=1, worker="w1"))
    journal.close()

    importlib.import_module(written("a"))
    for settings in (Settings(), Settings(encryption_keys=KEYS)):
        [replayed] = asyncio.run(replay_export(export(database, polos=""), settings))
        assert replayed.verdict == "goes_on"
    with pytest.raises(EncryptionError):
        export(Database(f"sqlite:///{tmp_path / 'journal.db'}"), polos="")


def _database(journal: Written) -> Any:
    database: Database = journal.database
    return database
