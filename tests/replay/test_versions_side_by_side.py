"""Workers of two versions on one broker and one database: what each finds that the other has written."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doorbells import messages
from recorded import MODULES

from polos.journal.creating import create_run
from polos.journal.database import Database
from polos.journal.exports import Export, read_export
from polos.journal.runs import NewRun, claim_run
from polos.journal.schema import HEAD
from polos.settings import Settings
from polos.testing import Verdict
from polos.worker.replays import replay_export
from polos.worker.unreadable import _problem, doorbell_ids

HERE = Path(__file__).parent
MESSAGES = sorted((HERE / "messages").glob("*.jsonl"))
LATER = {"later": {"than": "this version"}}
pytestmark = pytest.mark.timeout(120)


def recorded_messages(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_doorbells_of_every_version_are_heard(path: Path) -> None:
    run, turn = recorded_messages(path)
    for message, wanted in ((run, 1), (turn, 2)):
        args, kwargs, _ = message["body"]
        carried = SimpleNamespace(**{**message, "body": json.dumps(message["body"])})
        assert _problem(carried) is None
        assert doorbell_ids(tuple(args), kwargs, wanted) == args


def test_doorbells_are_what_workers_of_the_version_before_expect() -> None:
    """Another shape is thrown away there, and rung again only when a sweeper looks."""
    newest = max(MESSAGES, key=lambda path: read_export(HERE / "journals" / f"{path.stem}.jsonl.gz").schema)
    assert messages() == recorded_messages(newest)


async def test_what_a_later_version_adds_to_values_is_passed_over() -> None:
    """Turns, results of agents and what sessions remember, with a field that nobody here knows."""
    for module in MODULES:
        importlib.import_module(module)
    newest = next(
        export
        for export in (read_export(path) for path in (HERE / "journals").glob("*.gz"))
        if export.schema == HEAD
    )
    found = await replay_export(with_later_fields(newest), Settings())
    assert {one.verdict for one in found} == {Verdict.SAME, Verdict.GOES_ON}
    assert sum(one.verdict is Verdict.SAME for one in found) > 30


def with_later_fields(export: Export) -> Export:
    """Return an export whose engine's own values, but not those of programs, have a field more."""
    turns = [_added(step, "input", "output") for step in export.rows["step"]]
    items = [_added(message, "item") for message in export.rows["session_message"]]
    return Export(export.schema, export.polos, {**export.rows, "step": turns, "session_message": items})


def _added(row: dict[str, Any], *columns: str) -> dict[str, Any]:
    if row.get("kind", "turn") not in {"turn", "suspend", "event"}:
        return row
    texts = {name: json.loads(row[name]) for name in columns if name in row}
    more = {name: json.dumps({**value, **LATER}) for name, value in texts.items() if isinstance(value, dict)}
    return {**row, **more}


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(f"{request.param.removesuffix('ql')}_journal")
    return found


def test_a_run_of_a_newer_deployment_is_never_claimed_by_an_older_worker(database: Database) -> None:
    new = NewRun("newer", "default", "v2", "workflow", "flow", "flow", "polos", "newer", "flow")
    connection = database.connect()
    try:
        connection.commit([create_run(new, ring_again=0.0)])
        claims = [
            connection.commit([claim_run("newer", worker, project="default", deployment=deployment)])[0]
            for worker, deployment in (("old", "v1"), ("old", "default"), ("new", "v2"), ("late", "v2"))
        ]
    finally:
        connection.close()
    assert [bool(claim) for claim in claims] == [False, False, True, False]


def test_there_is_a_message_for_each_journal() -> None:
    journals = {path.name.removesuffix(".jsonl.gz") for path in (HERE / "journals").glob("*.gz")}
    assert {path.stem for path in MESSAGES} == journals
