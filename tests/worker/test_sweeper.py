"""What a sweep does to real rows, on SQLite and PostgreSQL."""

import time
import uuid

import pytest
from services import plain_routes, sqlite_url

from polos.dispatch import Doorbell
from polos.journal.creating import create_run
from polos.journal.database import Database
from polos.journal.ends import Ending, finish_run
from polos.journal.liveness import liveness_for
from polos.journal.recovery import ring_offered
from polos.journal.runs import READ_RUN, NewRun, claim_run, run_record
from polos.journal.states import RunStatus
from polos.journal.steps import READ_STEP_DETAILS, STEP_DETAILS, schedule_turn
from polos.journal.turns import claim_turn
from polos.journal.workers import READ_WORKERS, WorkerRow, beat, condemn, register_worker, seen_from
from polos.settings import Settings
from polos.worker.sweeper import Sweeper

HERE = {"project": "p", "deployment": "d"}


class Bells:
    """A dispatcher that keeps what was rung."""

    def __init__(self) -> None:
        self.rung: list[Doorbell] = []

    def ring(self, *doorbells: Doorbell) -> None:
        self.rung += doorbells


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    if request.param == "sqlite":
        return Database(sqlite_url(tmp_path))
    return Database(request.getfixturevalue("postgres_server").create_database())


class Scene:
    """A journal, a sweeper on it, and short words for what happens."""

    def __init__(self, database: Database) -> None:
        self.connection = database.connect()
        self.bells = Bells()
        self.sweeper = Sweeper(
            database, liveness_for(database), self.bells, plain_routes(), Settings(), revive=lambda: None
        )

    def do(self, unit):
        return self.connection.commit([unit])[0]

    def worker(self) -> str:
        """Register a worker that never beats."""
        row = WorkerRow(uuid.uuid4().hex, "w@host", 1, "p", "d", "celery", "polos", 1)
        self.do(register_worker(row, [("agent", "a")]))
        return row.id

    def run(self, *, ring_again: float = 5.0) -> str:
        run_id = str(uuid.uuid4())
        new = NewRun(
            id=run_id, kind="agent", name="a", queue="a", route="polos", root_id=run_id, root_name="a", **HERE
        )
        self.do(create_run(new, ring_again=ring_again))
        return run_id

    def claim(self, run_id: str, worker: str) -> int:
        return self.do(claim_run(run_id, worker, **HERE))[0][1]

    def turn(self, run_id: str, *, ring_again: float = 5.0) -> None:
        self.do(schedule_turn(run_id, 1, "$turn:1", position=0, input_text="{}", ring_again=ring_again))

    def record(self, run_id: str) -> dict:
        return run_record(self.connection.read(READ_RUN, {"run": run_id})[0])

    def step(self, run_id: str) -> dict:
        [row] = self.connection.read(READ_STEP_DETAILS, {"run": run_id})
        return {column.name: value for column, value in zip(STEP_DETAILS, row, strict=True)}

    def bury(self, worker: str) -> None:
        [seen] = [row for row in self.connection.read(READ_WORKERS, {}) if row[0] == worker]
        self.sweeper.bury(seen_from(seen))


@pytest.fixture
def scene(database):
    scene = Scene(database)
    yield scene
    scene.sweeper.stop()
    scene.connection.close()


def test_a_run_nobody_claimed_is_rung_again_after_its_pause_and_then_later(scene):
    due, fresh = scene.run(ring_again=-1.0), scene.run()
    scene.sweeper.sweep()
    assert [bell.run_id for bell in scene.bells.rung] == [due]
    scene.sweeper.sweep()
    assert len(scene.bells.rung) == 1, "the next ring waits for the doubled pause"
    assert scene.record(due)["rings"] == 1
    assert scene.record(fresh)["rings"] == 0


def test_what_a_buried_worker_owned_is_due_at_once(scene):
    worker = scene.worker()
    run_id = scene.run()
    scene.claim(run_id, worker)
    scene.bury(worker)
    assert scene.record(run_id)["status"] == RunStatus.QUEUED
    assert scene.record(run_id)["owner"] is None
    scene.sweeper.sweep()
    assert [bell.run_id for bell in scene.bells.rung] == [run_id]
    assert scene.connection.read(READ_WORKERS, {}) == []


def test_a_worker_that_was_heard_of_since_it_was_judged_is_not_buried(scene):
    """It may have begun something: it knows of the beat that was acknowledged, not of the verdict."""
    worker = scene.worker()
    run_id = scene.run()
    scene.claim(run_id, worker)
    [judged] = [seen_from(row) for row in scene.connection.read(READ_WORKERS, {})]
    time.sleep(0.01)  # the next beat is a later one
    assert scene.do(beat(worker))
    scene.sweeper.bury(judged)
    assert scene.record(run_id)["owner"] == worker
    assert scene.do(beat(worker)), "it goes on under its id"


def test_who_is_not_heard_of_itself_judges_nobody(database):
    """A full disk is read as before, and shows everybody silent: they get the time to beat again."""
    scene, heard_of = Scene(database), []
    sweeper = Sweeper(
        database,
        liveness_for(database),
        scene.bells,
        plain_routes(),
        Settings(silence_limit_seconds=0.3),
        revive=lambda: None,
        is_heard_of=lambda: bool(heard_of),
    )
    scene.worker()
    workers = lambda: [seen_from(row) for row in scene.connection.read(READ_WORKERS, {})]  # noqa: E731
    while workers()[0].silent_seconds < 1.0:
        sweeper.sweep()
    heard_of.append("a beat")
    sweeper.sweep()
    assert workers()
    while workers():
        sweeper.sweep()


def test_what_a_sweeper_left_that_died_behind_its_verdict_is_put_back(scene):
    worker = scene.worker()
    run_id = scene.run()
    scene.claim(run_id, worker)
    [judged] = [seen_from(row) for row in scene.connection.read(READ_WORKERS, {})]
    assert scene.do(condemn(worker, beat_at=judged.beat_at))
    assert not scene.do(beat(worker)), "it is told at its next beat"
    scene.sweeper.sweep()
    assert scene.record(run_id)["owner"] is None


def test_a_turn_of_a_buried_worker_is_scheduled_again_with_the_same_run_owner(scene):
    worker, coordinator = scene.worker(), scene.worker()
    run_id = scene.run()
    scene.claim(run_id, coordinator)
    scene.turn(run_id)
    scene.do(claim_turn(run_id, "$turn:1", worker, **HERE))
    scene.bury(worker)
    step = scene.step(run_id)
    assert (step["status"], step["owner"], step["crashes"]) == ("scheduled", None, 1)
    assert scene.record(run_id)["owner"] == coordinator
    scene.sweeper.sweep()
    [bell] = scene.bells.rung
    assert (bell.step, bell.label) == ("$turn:1", "a.turn")


def test_only_a_run_that_executed_code_counts_the_crash_of_its_owner(scene):
    worker = scene.worker()
    executing, waiting = scene.run(), scene.run()
    for run_id in (executing, waiting):
        scene.claim(run_id, worker)
    scene.turn(waiting)
    scene.bury(worker)
    assert scene.record(executing)["crashes"] == 1
    assert scene.record(waiting)["crashes"] == 0


def test_a_doorbell_that_a_dead_worker_may_have_popped_is_due_at_once(scene):
    worker = scene.worker()
    run_id = scene.run(ring_again=50.0)
    scene.bury(worker)
    scene.sweeper.sweep()
    assert [bell.run_id for bell in scene.bells.rung] == [run_id]


def test_what_an_unknown_worker_owns_is_put_back(scene):
    """A stopped process may wake up and claim after it was buried."""
    run_id = scene.run()
    scene.claim(run_id, "nobody")
    scene.sweeper.sweep()
    assert scene.record(run_id)["status"] == RunStatus.QUEUED


def test_a_due_turn_of_an_ended_run_is_closed_and_not_rung(scene):
    worker = scene.worker()
    run_id = scene.run()
    attempt = scene.claim(run_id, worker)
    scene.turn(run_id, ring_again=-1.0)
    scene.do(finish_run(run_id, attempt, Ending(RunStatus.FAILED, error="x"), root_id=run_id))
    scene.sweeper.sweep()
    assert scene.bells.rung == []
    assert scene.step(run_id)["status"] == "failed"


def test_a_run_that_waited_for_its_worker_is_due_when_one_registers(scene):
    run_id = scene.run(ring_again=50.0)
    other = WorkerRow(uuid.uuid4().hex, "o@host", 1, "p", "d", "celery", "polos", 1)
    scene.do(register_worker(other, [("agent", "another")]))
    assert scene.do(ring_offered(other.id, **HERE)) == []
    assert scene.do(ring_offered(scene.worker(), **HERE)) == [(run_id,)]
