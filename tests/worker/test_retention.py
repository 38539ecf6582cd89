"""What is older than it is kept is removed, all of it, and nothing else; on SQLite and PostgreSQL."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from services import Postgres, emptied, plain_routes, sqlite_url
from sqlalchemy import text
from typer.testing import CliRunner

from polos import event_data
from polos.allowances import KEPT_SECONDS, Allowance
from polos.cli.main import app
from polos.dispatch import Doorbell
from polos.journal.allowances import READ_ALLOWANCES, change_allowance
from polos.journal.creating import create_run
from polos.journal.database import Database
from polos.journal.events import NewEvent, publish, publish_in_tree
from polos.journal.forgetting import MAX_SESSIONS, forget, replace_memory
from polos.journal.memory import NewMessage, SessionKey
from polos.journal.runs import NewRun
from polos.journal.standing_approvals import AllowedCall, allow
from polos.journal.statements import Part, Statement, Unit
from polos.journal.workers import READ_CLOCK
from polos.settings import Settings
from polos.worker.duties.desk import Desk, Duty
from polos.worker.duties.retention import RemoveOldRuns
from polos.worker.duties.sessions import RemoveOldSessions

pytestmark = pytest.mark.timeout(120)
DAY = 86400.0
STATES = ("completed", "failed", "cancelled", "queued", "waiting", "blocked")
ENDED = {"completed", "failed", "cancelled"}


@pytest.fixture(scope="module")
def sqlite_journal(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return Database(sqlite_url(Path(tmp_path_factory.mktemp("retention"))))


@pytest.fixture(scope="module")
def postgres_journal(postgres_server: Postgres) -> Database:
    return Database(postgres_server.create_database())


class Journal:
    """A journal with trees of any age."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.connection = database.connect()

    def remove(self, duty: Duty | None = None, **settings: float) -> None:
        """Let a sweeper remove what it finds, batch after batch."""
        desk = Desk(lambda: self.connection, self, plain_routes(), Settings(**settings))
        duty = duty or RemoveOldRuns()
        while duty.do(desk) is not None:
            pass

    def ring(self, *bells: Doorbell) -> None:
        pass

    def do(self, unit: Unit) -> Any:
        return self.connection.commit([unit])[0]

    def sql(self, sql: str, **params: Any) -> None:
        self.do(Unit((Part(Statement(text(sql)), params, guard=False),), ()))

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.connection.read(Statement(text(sql)), {})]

    def run(self, status: str, days: float, *, root: str | None = None, parent: str | None = None) -> str:
        """Create a run with a step that ended so many days ago, if it did."""
        run_id = str(uuid.uuid4())
        new = NewRun(
            id=run_id,
            project="p",
            deployment="d",
            kind="workflow",
            name="w",
            queue="q",
            route="polos",
            root_id=root or run_id,
            root_name="w",
            parent_id=parent,
            depth=0 if parent is None else 1,
        )
        self.do(create_run(new, ring_again=5.0))
        moment = f"created_at - {days * DAY}" if status in ENDED else "NULL"
        ring_at = "ring_at" if status == "queued" else "NULL"
        change = (
            f"UPDATE run SET status = :status, finished_at = {moment}, ring_at = {ring_at} WHERE id = :id"
        )
        self.sql(change, status=status, id=run_id)
        columns = "run_id, name, kind, position, status, attempt, tries, crashes, rings"
        self.sql(
            f"INSERT INTO step ({columns}) VALUES (:id, 's', 'run', 0, 'completed', 0, 1, 0, 0)", id=run_id
        )
        return run_id

    def tree(self, *members: tuple[str, float]) -> str:
        """Create a tree: its root, children, and an event."""
        root = self.run(*members[0])
        for member in members[1:]:
            self.run(*member, root=root, parent=root)
        self.do(publish_in_tree("p", event_data.topic_of("w", root), root, [NewEvent("t", "{}")]))
        return root

    def kept(self) -> set[str]:
        """Return the roots that are still there, and check that nothing is there by halves."""
        runs = dict(self.read("SELECT id, root_id FROM run"))
        assert {row[0] for row in self.read("SELECT run_id FROM step")} == set(runs)
        roots = set(runs.values())
        assert roots <= set(runs), "a tree lost its root"
        topics = {row[0] for row in self.read("SELECT topic FROM event WHERE topic LIKE 'workflow/%'")}
        assert topics == {event_data.topic_of("w", root) for root in roots}
        return roots


@pytest.fixture(params=["sqlite_journal", "postgres_journal"])
def journal(request: pytest.FixtureRequest) -> Iterator[Journal]:
    made = Journal(emptied(request.getfixturevalue(request.param)))
    yield made
    made.connection.close()


@pytest.mark.parametrize("seed", range(3))
def test_of_any_trees_those_go_whose_runs_have_all_ended_long_ago(journal: Journal, seed: int) -> None:
    dice = random.Random(seed)
    trees: dict[str, list[tuple[str, float]]] = {}
    for _ in range(40):
        weights = (6, 4, 4, 1, 1, 1)
        members = [
            (dice.choices(STATES, weights)[0], dice.choice([0.5, 6.9, 7.1, 30]))
            for _ in range(dice.randint(1, 4))
        ]
        trees[journal.tree(*members)] = members
    journal.remove(retention_days=7.0)
    gone = {
        root
        for root, members in trees.items()
        if all(status in ENDED and days > 7 for status, days in members)
    }
    assert gone, "the dice made nothing old"
    assert journal.kept() == set(trees) - gone


def test_each_way_to_end_may_have_days_of_its_own(journal: Journal) -> None:
    roots = {status: journal.tree((status, 5.0)) for status in ("completed", "failed", "cancelled")}
    journal.remove(retention_days=3.0, retention_days_failed=30.0, retention_days_cancelled=0.0)
    assert journal.kept() == {roots["failed"], roots["cancelled"]}


def test_zero_days_keep_everything(journal: Journal) -> None:
    root = journal.tree(("completed", 5000.0))
    journal.remove(retention_days=0.0)
    assert journal.kept() == {root}


def test_more_than_a_batch_goes_batch_by_batch(journal: Journal) -> None:
    for _ in range(60):
        journal.run("completed", 8.0)
    journal.remove(retention_days=7.0)
    assert journal.read("SELECT count(*) FROM run") == [(0,)]


@pytest.mark.parametrize(("cursor", "is_active", "left"), [(2, 1, 0), (1, 1, 1), (1, 0, 0)])
def test_events_of_topics_go_once_every_active_trigger_has_read_them(
    journal: Journal, cursor: int, is_active: int, left: int
) -> None:
    journal.do(publish("p", "orders", [NewEvent("new", "{}"), NewEvent("new", "{}")]))
    journal.sql("UPDATE event SET created_at = created_at - 800000")
    columns = (
        "project, workflow, topic, deployment, kind, queue, route, batch_size, cursor, is_active, created_at"
    )
    values = "VALUES ('p', 'w', 'orders', 'd', 'workflow', 'q', 'polos', 1, :cursor, :active, 1)"
    journal.sql(f"INSERT INTO event_trigger ({columns}) {values}", cursor=cursor, active=is_active)
    journal.remove(retention_days=7.0)
    assert journal.read("SELECT count(*) FROM event") == [(left,)]
    assert journal.read("SELECT event_seq FROM topic") == [(2,)], "numbers go on"


def test_recent_events_stay(journal: Journal) -> None:
    journal.do(publish("p", "orders", [NewEvent("new", "{}")]))
    journal.remove(retention_days=7.0)
    assert journal.read("SELECT count(*) FROM event") == [(1,)]


# -- polos gc


@pytest.fixture
def polos(journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    url = journal.database.url.render_as_string(hide_password=False)
    monkeypatch.setenv("POLOS_DATABASE_URL", url)
    return lambda *arguments: CliRunner().invoke(app, ["gc", *arguments])


def test_gc_removes_what_is_old_and_says_how_much(journal: Journal, polos: Any) -> None:
    journal.tree(("completed", 20.0), ("failed", 20.0))
    young = journal.tree(("completed", 2.0))
    assert polos("--dry-run").output == "1 runs, with all below them, and 0 memories would be removed.\n"
    assert len(journal.kept()) == 2
    assert polos().output == "Removed 1 runs, with all below them, 0 events and 0 memories of sessions.\n"
    assert journal.kept() == {young}
    assert polos("--days", "1").output.startswith("Removed 1 runs")
    assert journal.kept() == set()


def test_gc_of_what_is_kept_for_ever_says_what_to_do(polos: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECUTION_RETENTION_DAYS", "0")
    monkeypatch.setenv("POLOS_SESSION_RETENTION_DAYS", "0")
    answer = polos()
    assert answer.exit_code == 2
    assert "--days N" in answer.output


def test_approvals_that_stand_no_longer_are_removed(journal: Journal) -> None:
    for days in (1.0, 40.0):
        call = AllowedCall("p", f"session-{days}", "agent", "tool", {})
        journal.do(allow(call, run_id="r", answered_by=None))
        journal.sql(
            f"UPDATE standing_approval SET created_at = created_at - {days * DAY} WHERE id = :id", id=call.id
        )
    duty = RemoveOldRuns()
    journal.remove(duty, retention_days=0.0, standing_approval_days=0.0)
    assert len(journal.read("SELECT id FROM standing_approval")) == 2
    journal.remove(duty, retention_days=0.0)
    assert journal.read("SELECT session_id FROM standing_approval") == [("session-1.0",)]


# -- what agents remember of sessions


def remembered(journal: Journal, session: str, days: float, *, live: bool = False) -> None:
    """Write a memory that was used so many days ago; with `live`, a run of the session has not ended."""
    key = SessionKey("p", session, "helper")
    journal.do(replace_memory(key, "new", [NewMessage('"hello"', 2)], summary=NewMessage("before", 2)))
    moments = f"used_at = used_at - {days * DAY}, created_at = created_at - {days * DAY}, deleted_at = NULL"
    journal.sql(f"UPDATE session SET {moments} WHERE session_id = :id", id=session)
    if live:
        run_id = journal.run("waiting", 0)
        journal.sql("UPDATE run SET session_id = :session WHERE id = :id", session=session, id=run_id)


def memories(journal: Journal) -> dict[str, set[str]]:
    """Return which sessions have rows, by table."""
    tables = ("session", "session_message", "session_summary")
    return {table: {row[0] for row in journal.read(f"SELECT session_id FROM {table}")} for table in tables}


def test_sessions_go_that_nobody_has_used_for_long_and_no_run_reads(journal: Journal) -> None:
    remembered(journal, "old", 31)
    remembered(journal, "young", 29)
    remembered(journal, "in use", 100, live=True)
    duty = RemoveOldSessions()
    journal.remove(duty, session_retention_days=30.0)
    left = {"young", "in use"}
    assert memories(journal) == {"session": left, "session_message": left, "session_summary": left}

    journal.sql("UPDATE run SET status = 'cancelled', finished_at = created_at")
    journal.remove(duty, session_retention_days=30.0)
    assert memories(journal)["session_message"] == {"young"}


def test_sessions_are_kept_for_ever_where_zero_says_so(journal: Journal) -> None:
    remembered(journal, "ancient", 5000)
    remembered(journal, "deleted", 0)
    journal.do(forget(SessionKey("p", "deleted", "helper"), "newer"))
    journal.remove(RemoveOldSessions(), session_retention_days=0.0)
    assert memories(journal)["session_message"] == {"ancient"}


def test_more_sessions_than_a_batch_go_batch_by_batch(journal: Journal) -> None:
    for number in range(MAX_SESSIONS + 5):
        remembered(journal, f"session {number}", 31)
    journal.remove(RemoveOldSessions(), session_retention_days=30.0)
    assert memories(journal) == {"session": set(), "session_message": set(), "session_summary": set()}


def test_allowances_that_nobody_waits_for_are_forgotten_as_redis_does(journal: Journal) -> None:
    """One for each key of each customer, else, for ever."""
    [(moment, _)] = journal.connection.read(READ_CLOCK, {})
    for name, state in {
        "old": Allowance(gate=moment - KEPT_SECONDS - 5, tail=moment - 5000, lag=1.0),
        "paused": Allowance(gate=moment - 5000, tail=moment - 5000, paused=moment + 5),
        "waited-for": Allowance(gate=moment - 5000, tail=moment - 5000, lag=5100.0),
        "used": Allowance(gate=moment, tail=moment - 5000),
    }.items():
        journal.do(change_allowance("p", name, state, seen=None))
    journal.remove(retention_days=0.0)
    kept = [row[1] for row in journal.connection.read(READ_ALLOWANCES, {"project": "p"})]
    assert kept == ["paused", "used", "waited-for"]
