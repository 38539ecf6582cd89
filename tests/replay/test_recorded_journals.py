"""Journals that earlier versions have left: each is moved to today's schema, replayed, and gone on with."""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import recorded
from recorded import MODULES, Start, answer_to
from services import Postgres

from polos import EventData, PolosClient
from polos.journal import schema
from polos.journal.database import Database
from polos.journal.exports import Export, export, read_export, restore
from polos.journal.runs import unblock_run
from polos.journal.states import TERMINAL
from polos.models.request import ModelRequest
from polos.testing import MovableClock, Verdict, answer, approve, replay, runtime, tool_call

JOURNALS = sorted((Path(__file__).parent / "journals").glob("*.jsonl.gz"))
STARTS: dict[str, list[Start]] = {module: importlib.import_module(module).STARTS for module in MODULES}
pytestmark = pytest.mark.timeout(120)
EVERYWHERE = os.environ.get("REPLAY_EVERYWHERE") == "1"
RELEASED = JOURNALS[0]
FEW = [path for path in JOURNALS if path.name.startswith(("schema-0001", "schema-0007"))]


def _name(path: Path) -> str:
    return path.name.removesuffix(".jsonl.gz")


each_journal = pytest.mark.parametrize("path", JOURNALS, ids=_name)


def test_every_revision_that_ever_stood_has_a_journal() -> None:
    """0002 and 0003 came together: nobody ever had only the first."""
    recorded_at = {read_export(path).schema for path in JOURNALS}
    assert recorded_at == set(schema.known_versions()) - {"0002"}


# -- ended runs


@each_journal
async def test_ended_runs_come_to_the_same_end_and_no_run_deviates(path: Path) -> None:
    before = len(recorded.effects)
    found = await replay(path)

    assert [one for one in found if one.verdict is Verdict.OTHER_END] == []
    assert {one.run_id for one in found if one.verdict is Verdict.SAME} == {
        run["id"]
        for run in runs_of(path)
        if run["status"] in {"completed", "failed"} and run["kind"] != "tool"
    }
    assert recorded.effects[before:] == []


def runs_of(path: Path) -> list[dict[str, Any]]:
    return read_export(path).rows["run"]


# -- runs that are half-way


@pytest.mark.parametrize("path", JOURNALS if EVERYWHERE else [RELEASED, *FEW], ids=_name)
async def test_half_way_runs_go_on_to_their_end(path: Path) -> None:
    halfway = {run["id"]: start_of(run) for run in runs_of(path) if _is_half_way(run)}
    recorded.effects.clear()
    async with going_on(path) as (client, clock):
        for _ in range(4):  # the worker that died is taken for dead, unless time only jumped
            await clock.advance(seconds=4)
        await _answer_all(client, halfway)
        await clock.advance(hours=5)
        for run_id, start in halfway.items():
            run = await client.get_execution(run_id)
            assert (start.name, run["status"], run["error"]) == (start.name, start.ends, None)
            assert start.output in (None, _output(run)), start.name
    assert {"before", "inside", "third", "woke"} - set(recorded.effects) <= {"before", "woke"}
    assert recorded.effects.count("first") == 0  # is on record for each of them


def _is_half_way(run: dict[str, Any]) -> bool:
    return run["status"] not in TERMINAL and "idempotency_key" in run


def start_of(run: dict[str, Any]) -> Start:
    """Return what a run was recorded for: its key is the module, and the place in its list."""
    place, _, name = run["idempotency_key"].partition(" ")
    module, _, number = place.partition(".")
    start = STARTS[module][int(number)]
    assert start.name == name, "STARTS only grow at their ends: journals name places in them"
    return start


@asynccontextmanager
async def going_on(path: Path) -> AsyncIterator[tuple[PolosClient, MovableClock]]:
    """Run what this process defines on a recorded journal, from the moment on when it was written down."""
    clock = MovableClock(start=datetime.fromtimestamp(_last_moment(path), UTC))
    async with runtime(model=_answered, clock=clock, journal=path, silence_limit_seconds=10) as client:
        yield client, clock


def _last_moment(path: Path) -> float:
    return max(worker["beat_at"] for worker in read_export(path).rows["worker"])


def _answered(request: ModelRequest) -> Any:
    said = answer_to(request.messages)
    calls = [tool_call(name, **arguments) for name, arguments in said["calls"]]
    return answer(None if calls else said["says"], *calls)


async def _answer_all(client: PolosClient, halfway: dict[str, Start]) -> None:
    """Do for each run what it waits for."""
    for run_id, start in halfway.items():
        if start.name == "recorded-question":
            await client.resume(start.name, run_id, "ask", {"answer": "yes"})
        elif start.name == "recorded-payer":
            await approve(client, run_id)
        elif start.name == "recorded-changed":
            await _unblock(client, run_id)
    await client.publish_events("recorded/go", [EventData(data={"word": "go"})])


async def _unblock(client: PolosClient, run_id: str) -> None:
    backend = await client._transport.backend()  # type: ignore[attr-defined]
    backend._again(lambda journal: journal.commit([unblock_run(run_id)]))


def _output(run: dict[str, Any]) -> Any:
    result = run["result"]
    return result["result"] if isinstance(result, dict) and "agent_run_id" in result else result


# -- both databases


@pytest.mark.parametrize("path", JOURNALS if EVERYWHERE else FEW, ids=_name)
def test_both_databases_keep_all_rows_on_the_way_to_todays_schema(
    path: Path, tmp_path: Path, postgres_server: Postgres
) -> None:
    before = read_export(path)
    sqlite = moved(before, Database(f"sqlite:///{tmp_path / 'journal.db'}"))
    postgres = moved(before, Database(postgres_server.create_database(empty=True)))

    assert sqlite == postgres
    for table, rows in before.rows.items():
        assert [_as_before(*pair) for pair in zip(sqlite.rows[table], rows, strict=True)] == rows, table


def moved(wanted: Export, database: Database) -> Export:
    """Put an export into a database, move it to today's schema, and return what is there then."""
    restore(wanted, database)
    assert export(database, polos=wanted.polos) == wanted
    assert schema.upgrade(database) == wanted.schema
    return export(database, polos=wanted.polos)


def _as_before(row: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Return the columns that there were; what a migration fills in may have been null."""
    return {name: row.get(name) for name in old}
