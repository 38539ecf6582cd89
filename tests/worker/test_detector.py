"""Rows in states that nothing would ever move are found, counted and put right, on SQLite and PostgreSQL."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from services import Postgres, emptied, plain_routes, sqlite_url
from sqlalchemy import text

from polos.dispatch import Doorbell
from polos.journal.children import create_children
from polos.journal.creating import create_run
from polos.journal.database import Database
from polos.journal.ends import Ending, finish_run
from polos.journal.runs import READ_RUN, NewRun, claim_run, park_run, run_record
from polos.journal.statements import Part, Statement, Unit
from polos.journal.states import RunStatus
from polos.journal.steps import READ_STEP_DETAILS, schedule_turn, step_details
from polos.journal.stuck import READ_FINDINGS
from polos.journal.turns import claim_turn
from polos.journal.workers import WorkerRow, register_worker
from polos.settings import Settings
from polos.worker.duties.desk import Desk
from polos.worker.duties.detector import FindStuckRuns

pytestmark = pytest.mark.timeout(120)
HERE = {"project": "p", "deployment": "d"}


@pytest.fixture(scope="module")
def sqlite_journal(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return Database(sqlite_url(Path(tmp_path_factory.mktemp("detector"))))


@pytest.fixture(scope="module")
def postgres_journal(postgres_server: Postgres) -> Database:
    return Database(postgres_server.create_database())


class Journal:
    """A journal whose rows a test spoils, and a detector that looks at it."""

    def __init__(self, database: Database) -> None:
        self.connection = database.connect()
        self.desk = Desk(lambda: self.connection, self, plain_routes(), Settings())
        self.detector = FindStuckRuns()
        worker = WorkerRow("worker", "w@h", 1, "p", "d", "celery", "polos", 1)
        self.do(register_worker(worker, [("workflow", "w")]))

    def ring(self, *bells: Doorbell) -> None:
        pass

    def look_twice(self) -> None:
        self.detector.do(self.desk)
        self.detector.do(self.desk)

    def do(self, unit: Unit) -> Any:
        return self.connection.commit([unit])[0]

    def spoil(self, sql: str, **params: Any) -> None:
        """Do what no code of ours does."""
        self.do(Unit((Part(Statement(text(sql)), params, guard=False),), ()))

    def findings(self) -> dict[str, tuple[int, str, str | None]]:
        return {row[0]: row[1:4] for row in self.connection.read(READ_FINDINGS, {})}

    # -- sound rows

    def queued(self, **values: Any) -> str:
        run_id = str(uuid.uuid4())
        given = {"kind": "workflow", "queue": "q", "route": "polos", "root_id": run_id, **HERE, **values}
        self.do(create_run(NewRun(id=run_id, name="w", root_name="w", **given), ring_again=5.0))
        return run_id

    def running(self) -> str:
        run_id = self.queued()
        self.do(claim_run(run_id, "worker", **HERE))
        return run_id

    def with_turn(self, *, claimed: bool = False) -> str:
        run_id = self.running()
        self.do(schedule_turn(run_id, 1, "$turn:1", position=0, input_text="{}", ring_again=5.0))
        if claimed:
            self.do(claim_turn(run_id, "$turn:1", "worker", **HERE))
        return run_id

    def waiting(self) -> str:
        """Return a parked run with a turn under way."""
        run_id = self.with_turn(claimed=True)
        self.do(park_run(run_id, 1, seen_wakes=0))
        return run_id

    def parent(self, *, parked: bool = True) -> tuple[str, str]:
        """Return a run that waits for a child, and the child."""
        run_id = self.running()
        child_id = str(uuid.uuid4())
        child = NewRun(
            id=child_id,
            kind="workflow",
            name="c",
            queue="q",
            route="polos",
            root_id=run_id,
            root_name="w",
            parent_id=run_id,
            parent_step="child",
            awaited=1,
            depth=1,
            **HERE,
        )
        self.do(create_children(run_id, 1, [child], positions=[0], ring_again=5.0))
        if parked:
            self.do(park_run(run_id, 1, seen_wakes=0))
        return run_id, child_id

    def run(self, run_id: str) -> dict[str, Any]:
        return run_record(self.connection.read(READ_RUN, {"run": run_id})[0])

    def steps(self, run_id: str) -> dict[str, dict[str, Any]]:
        rows = [step_details(row) for row in self.connection.read(READ_STEP_DETAILS, {"run": run_id})]
        return {row["name"]: row for row in rows}


@pytest.fixture(params=["sqlite_journal", "postgres_journal"])
def journal(request: pytest.FixtureRequest) -> Iterator[Journal]:
    made = Journal(emptied(request.getfixturevalue(request.param)))
    yield made
    made.connection.close()


# -- each kind: what is spoilt, under which name it is found, and what holds afterwards

Spoil = Callable[[Journal], str]
CASES: dict[str, tuple[Spoil, Callable[[Journal, str], object]]] = {}


def case(name: str, holds: Callable[[Journal, str], object]) -> Callable[[Spoil], Spoil]:
    def keep(spoil: Spoil) -> Spoil:
        CASES[name] = (spoil, holds)
        return spoil

    return keep


def is_rung(journal: Journal, run_id: str) -> bool:
    run = journal.run(run_id)
    return run["status"] == "queued" and run["ring_at"] is not None and run["owner"] is None


@case("queued run that nobody rings", is_rung)
def unrung(journal: Journal) -> str:
    run_id = journal.queued()
    journal.spoil("UPDATE run SET ring_at = NULL WHERE id = :id", id=run_id)
    return run_id


@case("queued run rung only in a distant future", is_rung)
def rung_too_late(journal: Journal) -> str:
    run_id = journal.queued()
    journal.spoil("UPDATE run SET ring_at = ring_at + 1000000 WHERE id = :id", id=run_id)
    return run_id


@case("pending run that is rung", lambda journal, run_id: journal.run(run_id)["ring_at"] is None)
def pending_and_rung(journal: Journal) -> str:
    run_id = journal.queued()
    journal.spoil("UPDATE run SET slot = 'wanted' WHERE id = :id", id=run_id)
    return run_id


@case("running run without an owner", is_rung)
def ownerless(journal: Journal) -> str:
    run_id = journal.running()
    journal.spoil("UPDATE run SET owner = NULL WHERE id = :id", id=run_id)
    return run_id


@case("run owned though it is not running", is_rung)
def owned(journal: Journal) -> str:
    run_id = journal.queued()
    journal.spoil("UPDATE run SET owner = 'worker' WHERE id = :id", id=run_id)
    return run_id


@case("ended run without a time", lambda journal, run_id: journal.run(run_id)["finished_at"])
def ended_never(journal: Journal) -> str:
    run_id = journal.queued()
    journal.spoil("UPDATE run SET status = 'failed', ring_at = NULL WHERE id = :id", id=run_id)
    return run_id


@case("live run with a time of its end", lambda journal, run_id: not journal.run(run_id)["finished_at"])
def lives_on(journal: Journal) -> str:
    run_id = journal.queued()
    journal.spoil("UPDATE run SET finished_at = 1 WHERE id = :id", id=run_id)
    return run_id


def finished(journal: Journal, run_id: str, status: RunStatus = RunStatus.COMPLETED) -> str:
    assert journal.do(finish_run(run_id, 1, Ending(status), root_id=run_id))
    return run_id


@case("slot held by an ended run", lambda journal, run_id: journal.run(run_id)["slot"] is None)
def slot_kept(journal: Journal) -> str:
    run_id = finished(journal, journal.running())
    journal.spoil("UPDATE run SET slot = 'held' WHERE id = :id", id=run_id)
    return run_id


@case("ended run that is rung", lambda journal, run_id: journal.run(run_id)["ring_at"] is None)
def rung_after_its_end(journal: Journal) -> str:
    run_id = finished(journal, journal.running())
    journal.spoil("UPDATE run SET ring_at = 1 WHERE id = :id", id=run_id)
    return run_id


@case("slot held by a waiting run", lambda journal, run_id: journal.run(run_id)["slot"] == "released")
def slot_kept_waiting(journal: Journal) -> str:
    run_id = journal.waiting()
    journal.spoil("UPDATE run SET slot = 'held' WHERE id = :id", id=run_id)
    return run_id


@case(
    "scheduled turn that nobody rings",
    lambda journal, run_id: journal.steps(run_id)["$turn:1"]["ring_at"] is not None,
)
def turn_unrung(journal: Journal) -> str:
    run_id = journal.with_turn()
    journal.spoil("UPDATE step SET ring_at = NULL WHERE run_id = :id", id=run_id)
    return run_id


@case(
    "running turn without an owner",
    lambda journal, run_id: journal.steps(run_id)["$turn:1"]["status"] == "scheduled",
)
def turn_ownerless(journal: Journal) -> str:
    run_id = journal.with_turn(claimed=True)
    journal.spoil("UPDATE step SET owner = NULL WHERE run_id = :id", id=run_id)
    return run_id


@case("timer without a time", lambda journal, run_id: journal.steps(run_id)["$turn:1"]["ring_at"] is not None)
def timer_without_time(journal: Journal) -> str:
    run_id = journal.with_turn(claimed=True)
    journal.spoil("UPDATE step SET kind = 'timer', ring_at = NULL WHERE run_id = :id", id=run_id)
    return run_id


@case("waiting run that waits for nothing", is_rung)
def waits_for_nothing(journal: Journal) -> str:
    run_id = journal.waiting()
    journal.spoil("DELETE FROM step WHERE run_id = :id", id=run_id)
    return run_id


def is_delivered(journal: Journal, run_id: str) -> bool:
    step = journal.steps(run_id)["child"]
    assert is_rung(journal, run_id)
    return step["seq"] is not None and step["seq"] <= journal.run(run_id)["seq"]


@case("step that waits for a child that has ended", is_delivered)
def unheard(journal: Journal) -> str:
    run_id, child_id = journal.parent()
    journal.do(claim_run(child_id, "worker", **HERE))
    ended = Ending(RunStatus.COMPLETED, output='"child"')
    assert journal.do(finish_run(child_id, 1, ended, root_id=run_id))  # as if nobody waited for it
    return run_id


@case(
    "open step of an ended run",
    lambda journal, run_id: journal.steps(run_id)["$turn:1"]["status"] == "failed",
)
def left_open(journal: Journal) -> str:
    return finished(journal, journal.with_turn())


@case(
    "wait for an event that no step waits for",
    lambda journal, run_id: not journal.connection.read(Statement(text("SELECT 1 FROM event_wait")), {}),
)
def event_wait_left(journal: Journal) -> str:
    run_id = journal.queued()
    journal.spoil(
        "INSERT INTO event_wait (run_id, step, project, topic, after) VALUES (:id, 's', 'p', 't', 0)",
        id=run_id,
    )
    return run_id


@case(
    "definitions of no worker",
    lambda journal, run_id: (
        not journal.connection.read(Statement(text("SELECT 1 FROM definition WHERE worker_id = 'gone'")), {})
    ),
)
def offers_left(journal: Journal) -> str:
    journal.spoil("INSERT INTO definition (worker_id, kind, name) VALUES ('gone', 'workflow', 'w')")
    return "gone"


@pytest.mark.parametrize("name", CASES)
def test_it_is_found_counted_and_put_right(
    journal: Journal, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, holds = CASES[name]
    run_id = spoil(journal)
    with caplog.at_level(logging.WARNING, logger="polos.sweeper"):
        journal.look_twice()
    assert holds(journal, run_id)
    assert journal.findings()[name][:2] == (1, run_id)
    assert any(name in message and run_id in message for message in caplog.messages)
    found = journal.findings()
    journal.look_twice()
    assert journal.findings() == found, "what was put right is found no more"


def test_a_completed_childs_outcome_reaches_its_parent(journal: Journal) -> None:
    run_id = unheard(journal)
    journal.look_twice()
    step = journal.steps(run_id)["child"]
    assert (step["status"], step["output"], step["error"]) == ("completed", '"child"', None)


def test_a_child_that_is_gone_fails_the_step_that_waits_for_it(journal: Journal) -> None:
    run_id, child_id = journal.parent()
    journal.spoil("DELETE FROM run WHERE id = :id", id=child_id)
    journal.look_twice()
    step = journal.steps(run_id)["child"]
    assert (step["status"], step["error"]) == ("failed", "the child run is not in the journal")


@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.COMPLETED, RunStatus.CANCELLED])
def test_a_child_nobody_waits_for_any_more_is_cancelled_with_all_below(
    journal: Journal, status: RunStatus
) -> None:
    """Whoever ended its parent died before it could cancel the child."""
    run_id, child_id = journal.parent(parked=False)
    journal.do(claim_run(child_id, "worker", **HERE))
    finished(journal, run_id, status)
    journal.look_twice()
    child = journal.run(child_id)
    assert (child["status"], child["cancelled_by"]) == ("cancelled", "parent")


@pytest.mark.parametrize(("status", "lives"), [(RunStatus.FAILED, True), (RunStatus.CANCELLED, False)])
def test_a_child_that_was_only_started_goes_on_unless_its_parent_was_cancelled(
    journal: Journal, status: RunStatus, lives: bool
) -> None:
    run_id, child_id = journal.parent(parked=False)
    journal.spoil("UPDATE run SET awaited = 0 WHERE id = :id", id=child_id)
    finished(journal, run_id, status)
    journal.look_twice()
    assert (journal.run(child_id)["status"] == "queued") is lives


def test_a_step_that_waits_for_an_event_nobody_tells_it_of_is_reported(journal: Journal) -> None:
    """Its topic is not known any more, so a person decides."""
    run_id = journal.with_turn(claimed=True)
    journal.spoil("UPDATE step SET kind = 'event' WHERE run_id = :id", id=run_id)
    journal.look_twice()
    [(name, (count, found, step))] = journal.findings().items()
    assert (name, count, found, step) == (
        "step that waits for an event nobody would tell it of",
        1,
        run_id,
        "$turn:1",
    )


def test_sound_rows_are_left_alone(journal: Journal) -> None:
    journal.queued()
    journal.with_turn()
    journal.waiting()
    journal.parent()
    finished(journal, journal.running())
    journal.look_twice()
    assert journal.findings() == {}


def test_what_is_seen_only_once_is_left_alone(journal: Journal) -> None:
    run_id = unrung(journal)
    journal.detector.do(journal.desk)
    assert journal.run(run_id)["ring_at"] is None


def test_one_detector_looks_at_a_time(journal: Journal) -> None:
    run_id = unrung(journal)
    journal.detector.do(journal.desk)
    other = FindStuckRuns()
    other.do(journal.desk)
    other.do(journal.desk)
    assert journal.run(run_id)["ring_at"] is None
