"""What the server reads in the journal, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cli.written import Written

from polos.journal import keys
from polos.journal.database import Connection, Database
from polos.journal.offers import read_deployment, read_live_workers, read_offered
from polos.journal.progress import Progress, read_progress
from polos.journal.run_pages import SHOWN_CHARACTERS, RunPage, place_at, position_of, read_page
from polos.journal.sessions import SessionPage, read_sessions, read_tool_calls, read_turns
from polos.journal.states import RunStatus
from polos.journal.workers import WorkerRow, register_worker

PROJECT = "default"


@pytest.fixture
def written(empty_database: Database) -> Iterator[Written]:
    journal = Written(empty_database)
    yield journal
    journal.close()


@pytest.fixture
def journal(empty_database: Database) -> Iterator[Connection]:
    connection = empty_database.connect()
    yield connection
    connection.close()


def page_of(journal: Connection, **wanted: Any) -> list[str]:
    runs, _ = read_page(journal, RunPage(PROJECT, **{"limit": 100, **wanted}))
    return [run["id"] for run in runs]


# -- keys


def test_a_key_is_recognised_until_it_is_revoked(journal: Connection) -> None:
    key, secret = keys.issue(journal, "shop", "web")
    assert keys.recognise(journal, secret) == key
    assert keys.is_live(journal, key.id)
    assert keys.revoke(journal, key.id, project="shop")
    assert keys.recognise(journal, secret) is None
    assert not keys.is_live(journal, key.id)


def test_the_secret_is_not_kept(journal: Connection, empty_database: Database) -> None:
    _, secret = keys.issue(journal, "shop", "web")
    rows = journal.read(keys.Statement(keys.select(keys.KEYS)), {})
    assert secret[4:20] not in repr(rows)


def test_a_key_is_revoked_by_its_own_project_only(journal: Connection) -> None:
    key, secret = keys.issue(journal, "shop", "web")
    assert not keys.revoke(journal, key.id, project="other")
    assert keys.recognise(journal, secret) is not None


def test_keys_are_listed_by_project_while_they_live(journal: Connection) -> None:
    key, _ = keys.issue(journal, "shop", "web")
    gone, _ = keys.issue(journal, "shop", "old")
    other, _ = keys.issue(journal, "other", "web")
    keys.revoke(journal, gone.id, project="shop")
    assert [each.id for each in keys.listed(journal, "shop")] == [key.id]
    assert {each.id for each in keys.listed(journal, None)} == {key.id, other.id}


# -- pages of runs


def test_a_page_holds_one_project(written: Written, journal: Connection) -> None:
    run = written.run()
    written.run(project="other")
    assert page_of(journal) == [run]


def test_pages_are_filtered(written: Written, journal: Connection) -> None:
    flow = written.run("flow", session_id="s1", user_id="ada")
    agent = written.run("helper", kind="agent")
    done = written.ended(written.run("flow"))
    parent = written.claimed(written.run("outer"))
    child = written.child(parent, "inner")
    assert page_of(journal, name="flow") == [done, flow]
    assert page_of(journal, kind="agent") == [agent]
    assert page_of(journal, statuses=["completed", "failed"]) == [done]
    assert page_of(journal, session_id="s1") == page_of(journal, user_id="ada") == [flow]
    assert child not in page_of(journal, roots_only=True)
    assert len(page_of(journal)) == 5


def test_pages_are_cut_by_time(written: Written, journal: Connection) -> None:
    first, second = written.run(), written.run()
    runs, _ = read_page(journal, RunPage(PROJECT, limit=10))
    moment = runs[0]["created_at"]
    assert page_of(journal, since=moment) == [second]
    assert page_of(journal, until=moment) == [first]


def test_pages_follow_one_another(written: Written, journal: Connection) -> None:
    created = [written.run() for _ in range(5)]
    seen, after = [], None
    while True:
        runs, position = read_page(journal, RunPage(PROJECT, limit=2, after=after))
        seen += [run["id"] for run in runs]
        if position is None:
            break
        after = place_at(position)
    assert seen == created[::-1]


def test_a_position_is_exact(written: Written, journal: Connection) -> None:
    written.run()
    [run], _ = read_page(journal, RunPage(PROJECT, limit=1))
    assert place_at(position_of(run)) == (run["created_at"], run["id"])


def test_large_values_are_left_out(written: Written, journal: Connection) -> None:
    written.run(input=json.dumps("x" * SHOWN_CHARACTERS))
    [run], _ = read_page(journal, RunPage(PROJECT, limit=1))
    assert (run["input"], run["omitted"]) == (None, ["input"])


# -- sessions


def test_a_session_is_its_newest_run(written: Written, journal: Connection) -> None:
    old = written.run("helper", kind="agent", session_id="s1")
    new = written.run("helper", kind="agent", session_id="s1", input='{"input":"Hi"}')
    other = written.run("helper", kind="agent", session_id="s2")
    written.run("flow", session_id="s3")
    found = read_sessions(journal, SessionPage(PROJECT, limit=10))
    assert [(each["id"], each["run_count"]) for each in found] == [(other, 1), (new, 2)]
    assert old not in {each["id"] for each in found}
    assert found[1]["input_start"] == '{"input":"Hi"}'


def test_sessions_are_filtered(written: Written, journal: Connection) -> None:
    ended = written.ended(written.run("helper", kind="agent", session_id="s1"))
    written.run("other", kind="agent", session_id="s2")
    written.run("helper", kind="agent", session_id="s3", project="foreign")
    for filters in ({"statuses": ["completed"]}, {"agent": "helper"}):
        found = read_sessions(journal, SessionPage(PROJECT, limit=10, **filters))
        assert [each["id"] for each in found] == [ended]


def test_a_session_counts_its_tool_calls(written: Written, journal: Connection) -> None:
    run = written.claimed(written.run("helper", kind="agent", session_id="s1"))
    written.child(run, "search", step="a", kind="tool")
    written.child(run, "search", step="b", kind="tool")
    [session] = read_sessions(journal, SessionPage(PROJECT, limit=10))
    assert session["tool_call_count"] == 2
    assert [call["name"] for call in read_tool_calls(journal, run.id)] == ["search", "search"]


def test_the_turns_of_a_run_are_read(written: Written, journal: Connection) -> None:
    run = written.claimed(written.run("helper", kind="agent"))
    written.answered_turn(run, tokens_in=3, tokens_out=4)
    [turn] = read_turns(journal, run.id)
    assert json.loads(turn["output"])["content"] == "yes"


# -- who offers what


def test_what_live_workers_offer_is_told_once(written: Written, journal: Connection) -> None:
    for name in ("w1", "w2"):
        row = WorkerRow(name, f"{name}@here", 1, PROJECT, "v1", "celery", "polos", 1)
        offers = [("agent", "helper"), ("tool", "search")]
        written.do(register_worker(row, offers, details={("agent", "helper"): '{"model":"m"}'}))
    written.worker("w3", ("agent", "stranger"), project="other")
    found = list(read_offered(journal, PROJECT, silence_limit_seconds=10))
    assert [(each["name"], each["deployment"], each["details"]) for each in found] == [
        ("helper", "v1", '{"model":"m"}'),
        ("search", "v1", None),
    ]


def test_silent_workers_offer_nothing(written: Written, journal: Connection) -> None:
    written.worker("w1", ("agent", "helper"))
    assert list(read_offered(journal, PROJECT, silence_limit_seconds=-1)) == []
    assert read_live_workers(journal, PROJECT, silence_limit_seconds=-1) == []
    assert read_live_workers(journal, PROJECT, silence_limit_seconds=10) == [("w1", "default")]


def test_a_deployment_is_of_its_project(written: Written, journal: Connection) -> None:
    written.worker("w1", deployment="v7")
    assert read_deployment(journal, PROJECT, "v7") is not None
    assert read_deployment(journal, "other", "v7") is None


# -- progress


def progress_of(journal: Connection, *, patience_seconds: float = -120) -> Progress:
    """Return the progress as it will be seen when what waits now has waited for two minutes."""
    return read_progress(journal, patience_seconds=patience_seconds, rings=4, silence_limit_seconds=10)


def test_what_nobody_takes_is_late(written: Written, journal: Connection) -> None:
    written.run("flow")
    assert progress_of(journal) == Progress(late=1, late_offered=0, live_workers=0, is_executing=False)


def test_what_was_started_just_now_is_not_late(written: Written, journal: Connection) -> None:
    written.run("flow")
    assert progress_of(journal, patience_seconds=60).late == 0


def test_only_what_is_offered_can_be_expected_of_workers(written: Written, journal: Connection) -> None:
    written.run("flow")
    written.run("unknown")
    written.worker("w1", ("workflow", "flow"))
    assert progress_of(journal) == Progress(late=2, late_offered=1, live_workers=1, is_executing=False)


def test_a_worker_that_executes_makes_progress(written: Written, journal: Connection) -> None:
    written.worker("w1", ("workflow", "flow"))
    written.claimed(written.run("flow"), "w1")
    written.run("flow")
    assert progress_of(journal).is_executing


def test_turns_that_nobody_takes_are_late(written: Written, journal: Connection) -> None:
    run = written.claimed(written.run("helper", kind="agent"), "gone")
    written.turn(run)
    assert progress_of(journal).late == 1


def test_what_has_ended_waits_for_nobody(written: Written, journal: Connection) -> None:
    written.ended(written.run("flow"), RunStatus.FAILED, error="no")
    assert progress_of(journal).late == 0
