from __future__ import annotations

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
from benches import POLOS, Bench, wait_until
from written import Written, polos

from polos.cli.run_list import Overview
from polos.cli.watch import Changes
from polos.journal import schema
from polos.journal.database import Database
from polos.journal.ends import Ending, finish_run
from polos.journal.listing import Query, RunFilter, newest_runs, status_totals
from polos.journal.states import RunStatus


def listed(*arguments: str) -> list[dict[str, Any]]:
    answer = polos("runs", "--json", *arguments)
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.output)
    assert isinstance(found, list)
    return found


def names(*arguments: str) -> list[str]:
    return [run["name"] for run in listed(*arguments)]


# -- which runs, on both databases


def test_newest_run_comes_first(journal: Written) -> None:
    for name in ("first", "second", "third"):
        journal.run(name)
    assert names() == ["third", "second", "first"]


def test_children_are_listed_only_when_asked_for(journal: Written) -> None:
    parent = journal.claimed(journal.run("parent"))
    journal.child(parent, "child")
    assert [names(), names("--root-only"), names("--all")] == [["parent"], ["parent"], ["child", "parent"]]


def test_several_states_may_be_asked_for(journal: Written) -> None:
    journal.run("waits")
    journal.ended(journal.run("worked"))
    journal.ended(journal.run("broke"), RunStatus.FAILED, error="no")
    assert names("--status", "failed") == ["broke"]
    assert names("--status", "failed", "--status", "queued") == ["broke", "waits"]


@pytest.mark.parametrize(
    ("option", "column"),
    [
        ("--kind", "kind"),
        ("--name", "name"),
        ("--session", "session_id"),
        ("--user", "user_id"),
        ("--project", "project"),
    ],
)
def test_filter_keeps_what_it_names(journal: Written, option: str, column: str) -> None:
    value = {"kind": "agent", "name": "wanted"}.get(column, "some-id")
    wanted = journal.run(**{column: value})
    journal.run("unwanted")
    assert [run["id"] for run in listed(option, value)] == [wanted]


def test_since_leaves_out_what_is_older(journal: Written) -> None:
    journal.run("now")
    assert names("--since", "1h") == ["now"]
    assert names("--since", "2020-01-01") == ["now"]
    assert names("--since", "2999-01-01T12:00:00Z") == []


def test_limit_is_how_many_are_listed(journal: Written) -> None:
    for name in ("first", "second", "third"):
        journal.run(name)
    assert names("--limit", "2") == ["third", "second"]


def test_owner_is_told_by_its_node_name(journal: Written) -> None:
    journal.worker("w1")
    journal.claimed(journal.run("running"), "w1")
    assert listed()[0]["worker"] == "w1@here"


def test_totals_count_the_runs_that_pass_by_state(journal: Written) -> None:
    journal.child(journal.claimed(journal.run("parent")))
    journal.run("waits")
    journal.run("elsewhere", project="other")
    query = status_totals(RunFilter("default"))
    with closing(journal.database.connect()) as connection:
        counted = {status: count for status, count, _ in connection.read(query.statement, query.params)}
    assert counted == {"running": 1, "queued": 1}


def test_table_has_a_line_for_each_run_and_the_first_line_of_its_error(journal: Written) -> None:
    run_id = journal.ended(journal.run("broke"), RunStatus.FAILED, error="first line\nsecond line")
    [line] = [line for line in polos("runs").output.splitlines() if run_id in line]
    assert re.search(r"broke +workflow +failed .*first line", line)
    assert "second line" not in line


def test_duration_that_cannot_be_read_is_explained(journal: Written) -> None:
    refused = polos("runs", "--since", "yesterday")
    assert (refused.exit_code, "'yesterday'" in refused.output, "2d" in refused.output) == (2, True, True)


def test_narrow_terminal_gets_the_beginnings_of_ids(
    journal: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = journal.run()
    monkeypatch.setenv("COLUMNS", "80")
    output = polos("runs").output
    assert (run_id[:8] in output, run_id in output) == (True, False)


# -- one run, and by the beginning of its id


def test_tokens_are_told_for_each_turn_and_for_the_run_before_it_has_ended(journal: Written) -> None:
    run = journal.claimed(journal.run("helper", kind="agent"))
    journal.answered_turn(run, tokens_in=11, tokens_out=7, cost=0.5)
    lines = polos("runs", "show", run.id).output.splitlines()
    assert any(re.search(r"turn:1 +turn +completed .* 11 in, 7 out +\$0\.50", line) for line in lines)
    assert any(re.fullmatch(r"tokens +11 in, 7 out in 1 turn *", line) for line in lines)
    assert any(re.fullmatch(r"cost +\$0\.50 *", line) for line in lines)


def test_tokens_of_agents_below_are_summed_once(journal: Written) -> None:
    """A workflow that returns an agent's result has that agent's tokens as well."""
    top = journal.claimed(journal.run("top"))
    middle = journal.claimed(journal.child(top, "middle", step="middle"))
    agent = journal.claimed(journal.child(middle, "helper", step="helper", kind="agent"))
    journal.answered_turn(agent, tokens_in=11, tokens_out=7, cost=0.0125)
    for claim in (agent, middle):
        ending = Ending(RunStatus.COMPLETED)
        assert journal.do(finish_run(claim.id, claim.attempt, ending, root_id=claim.root_id))
    shown = polos("runs", "show", top.id).output
    assert re.search(r"tokens +18 in the runs it started", shown)
    assert re.search(r"cost +\$0\.0125 in the runs it started", shown)


def test_run_is_shown_by_a_beginning_that_no_other_id_has(journal: Written) -> None:
    run_id = journal.run()
    assert json.loads(polos("runs", "show", run_id[:8], "--json").output)["run"]["id"] == run_id
    assert json.loads(polos("runs", "show", run_id[:20].upper(), "--json").output)["run"]["id"] == run_id


def test_beginning_of_several_ids_is_refused_with_their_names(journal: Written) -> None:
    ids = [f"0badc0de-{number:04x}-4000-8000-000000000000" for number in (1, 2)]
    for run_id in ids:
        journal.run(run_id=run_id)
    refused = polos("runs", "show", "0badc0de")
    assert refused.exit_code == 2
    assert all(run_id in refused.output for run_id in ids)


def test_beginning_that_is_too_short_is_refused_with_the_length_wanted(journal: Written) -> None:
    refused = polos("runs", "show", journal.run()[:7])
    assert (refused.exit_code, "at least 8" in refused.output) == (2, True)


# -- how it is read

MANY = 5_000
_GIVEN = {
    **dict.fromkeys(("id", "root_id"), "'r' || n"),
    **dict.fromkeys(("project", "deployment"), "'default'"),
    **dict.fromkeys(("kind", "name", "root_name", "queue", "route"), "'flow'"),
    "status": "'completed'",
    "created_at": "n",
}
_ZERO = (
    "attempt, seq, wakes, awaited, depth, crashes, retries, rings, running_seconds, input_tokens,"
    " output_tokens, total_tokens"
)


def with_many_runs(database: Database) -> None:
    columns = ", ".join([*_GIVEN, _ZERO])
    values = ", ".join([*_GIVEN.values(), *["0"] * len(_ZERO.split(","))])
    insert = f"INSERT INTO run ({columns}) SELECT {values} FROM"
    if database.is_sqlite:
        with closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
            numbers = f"WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < {MANY})"
            connection.execute(f"{numbers} {insert} g")
    else:
        with psycopg.connect(database.conninfo, autocommit=True) as connection:
            connection.execute(f"{insert} generate_series(1, {MANY}) n")
            connection.execute("ANALYZE run")


def plan(database: Database, query: Query) -> str:
    text = query.statement.compiled(database.dialect)
    if database.is_sqlite:
        with closing(sqlite3.connect(database.path)) as connection:
            explained = connection.execute(f"EXPLAIN QUERY PLAN {text.text}", text.bind(query.params))
            return "\n".join(row[3] for row in explained)
    with psycopg.connect(database.conninfo) as connection:
        explained = connection.execute(f"EXPLAIN {text.text}", text.bind(query.params))
        return "\n".join(row[0] for row in explained)


@pytest.mark.parametrize(
    "query",
    [newest_runs(RunFilter("default"), limit=20), status_totals(RunFilter("default"), among=100)],
    ids=["list", "totals"],
)
def test_list_is_read_along_an_index(journal: Written, query: Query) -> None:
    with_many_runs(journal.database)
    told = plan(journal.database, query)
    assert "run_recent" in told
    assert not re.search(r"Seq Scan|SCAN run\b", told)


# -- watching


def seen(*runs: dict[str, Any], workers: dict[str, str] | None = None) -> Overview:
    totals = {"running": len(runs)} if runs else {}
    return Overview(list(runs), totals, are_partial=False, workers=workers or {}, live=len(workers or {}))


def a_run(**values: Any) -> dict[str, Any]:
    return {
        "id": "r1",
        "name": "flow",
        "status": "running",
        "attempt": 1,
        "owner": "w1",
        "error": None,
        **values,
    }


def test_change_of_owner_is_told_with_both_states_and_the_new_attempt() -> None:
    changes = Changes()
    changes.lines(seen(a_run(), workers={"w1": "one@here"}))
    lines = changes.lines(seen(a_run(status="queued", owner=None), workers={}))
    lines += changes.lines(seen(a_run(owner="w2", attempt=2), workers={"w2": "two@here"}))
    assert lines == [
        "worker one@here is gone",
        "flow r1  running → queued",
        "1 running; 0 live workers",
        "worker two@here is here",
        "flow r1  queued → running  attempt 2  on two@here",
        "1 running; 1 live worker",
    ]


def test_what_does_not_change_is_not_told_again() -> None:
    changes = Changes()
    changes.lines(seen(a_run()))
    assert changes.lines(seen(a_run())) == []


def test_outage_of_the_database_is_told_once() -> None:
    changes = Changes()
    assert [changes.lines("away"), changes.lines("away still")] == [["away"], []]


@pytest.fixture
def watched(bench: Bench) -> Iterator[Written]:
    """A journal in the folder of the bench."""
    database = Database(f"sqlite:///{bench.home}/polos.db")
    schema.prepare(database)
    written = Written(database)
    yield written
    written.close()


@contextmanager
def in_terminal(bench: Bench, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the command in a terminal of its own; yields it and what the terminal shows."""
    screen, terminal = pty.openpty()
    command = subprocess.Popen(
        [*POLOS, *arguments],
        cwd=bench.folder,
        env=bench.environment({"TERM": "xterm"}),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        yield command, screen
    finally:
        command.kill()
        command.wait()
        os.close(screen)


def until_shown(screen: int, words: str) -> None:
    shown = ""

    def has_come() -> bool:
        nonlocal shown
        shown += os.read(screen, 65_536).decode(errors="replace")
        return words in shown

    wait_until(has_come)


def test_watch_in_a_terminal_shows_new_runs_until_ctrl_c(bench: Bench, watched: Written) -> None:
    with in_terminal(bench, "runs", "--watch") as (command, screen):
        until_shown(screen, "0 live workers")
        watched.run("come-later")
        until_shown(screen, "come-later")
        command.send_signal(signal.SIGINT)
        assert command.wait(timeout=20) == 0


def test_watch_without_a_terminal_prints_a_line_per_change_until_ctrl_c(
    bench: Bench, watched: Written
) -> None:
    run_id = watched.run("flow")
    command = bench.start("runs", "--watch")
    assert command.stdout is not None
    assert f"flow {run_id}  queued" in command.stdout.readline()
    watched.claimed(run_id)
    changed = next(line for line in command.stdout if "→" in line)
    assert f"flow {run_id}  queued → running  on w1" in changed
    command.send_signal(signal.SIGINT)
    assert command.wait(timeout=20) == 0
