"""Processes that write the same parents never deadlock; no child outlives the cancel of its parent."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from hands import Together, result
from scenes import (
    RING_AGAIN,
    Scene,
    child_of,
    creation,
    finishing,
    turn_claim,
    turn_completion,
)

from polos.journal.cancelling import READ_AWAITED_CHILDREN
from polos.journal.children import cancel_run
from polos.journal.database import Database
from polos.journal.runs import Claim, NewRun
from polos.journal.statements import Unit

HERE = Path(__file__).parent
PROCESSES = 4
PARENTS = 20
CHILDREN_OF_EACH = 20  # per process and parent: 1,600 completions


def cancelling(run_id: str, parent: Claim | None = None) -> Unit:
    return cancel_run(
        run_id,
        root_id=parent.root_id if parent else run_id,
        parent_id=parent.id if parent else None,
        parent_step="child" if parent else None,
        cancelled_by="user",
        error="cancelled",
        ring_again=RING_AGAIN,
    )


# -- many processes, the same parents


@pytest.mark.timeout(120)
def test_batches_of_four_processes_on_the_same_parents_never_deadlock(postgres_only: Database) -> None:
    scene = Scene(postgres_only)
    parents = [scene.running("a") for _ in range(PARENTS)]
    for parent in parents:
        scene.do(creation(parent, *_children(parent)))
    before = _deadlocks(postgres_only)

    finishers = [_finisher(postgres_only, number) for number in range(PROCESSES)]
    try:
        for process in finishers:
            assert process.stdout
            assert process.stdout.readline().strip() == "ready"
        for process in finishers:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.wait(60) for process in finishers] == [0] * PROCESSES
    finally:
        for process in finishers:
            process.kill()
            process.communicate()

    assert _deadlocks(postgres_only) == before
    completed = PROCESSES * CHILDREN_OF_EACH
    for parent in parents:
        steps = scene.steps(parent.id).values()
        assert scene.run(parent.id)["wakes"] == completed
        assert len({step.seq for step in steps}) == completed
        assert {step.status for step in steps} == {"completed"}
    scene.close()


def _children(parent: Claim) -> list[NewRun]:
    return [
        replace(child_of(parent, f"{number}-{index}"), user_id=f"finisher-{number}")
        for number in range(PROCESSES)
        for index in range(CHILDREN_OF_EACH)
    ]


def _finisher(database: Database, number: int) -> subprocess.Popen[str]:
    url = database.url.render_as_string(hide_password=False)
    return subprocess.Popen(
        [sys.executable, str(HERE / "finisher.py"), url, f"finisher-{number}", str(number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[1]}"},
    )


def _deadlocks(database: Database) -> int:
    """Deadlocks the server has counted, once every session that ended has reported."""
    with psycopg.connect(database.conninfo, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        row = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row
    return int(row[0])


@pytest.mark.parametrize("seed", range(3))
def test_one_batch_locks_its_runs_in_the_order_of_every_other(
    postgres_only: Database, together: Together, seed: int
) -> None:
    """A batch stops at the first run that another transaction holds, whatever order its units are in."""
    scene = Scene(postgres_only)
    parents = [scene.running("a") for _ in range(6)]
    children = [scene.claimed(scene.child(parent).id, "b") for parent in parents]
    holder, batch = scene.hand(), scene.hand()
    holder.begin(finishing(children[0]))  # the first in the order
    random.Random(seed).shuffle(children)
    late = together.commit_behind(batch, *(finishing(child) for child in children))
    free = [parent.id for parent in parents[1:]]
    with psycopg.connect(postgres_only.conninfo) as other:
        locked = other.execute(
            "SELECT id FROM run WHERE id = ANY(%s) FOR UPDATE SKIP LOCKED", [free]
        ).fetchall()
    assert {row[0] for row in locked} == set(free)  # the batch holds none of them while it waits
    holder.end()

    answers = late.result(20)
    assert sum(bool(rows) for rows in answers) == len(children) - 1
    scene.close()


def test_a_cancel_from_above_and_a_completion_from_below_do_not_deadlock(
    scene: Scene, together: Together
) -> None:
    parent = scene.running("a")
    child = scene.claimed(scene.child(parent).id, "b")
    user, worker = scene.hand(), scene.hand()
    [cancelled] = user.begin(cancelling(parent.id))
    late = together.commit_behind(worker, finishing(child))
    user.end()

    assert cancelled
    assert result(late)
    assert scene.run(parent.id)["status"] == "cancelled"
    assert scene.run(child.id)["status"] == "completed"


# -- cancel against what it must not miss


def test_a_child_created_while_its_parent_is_cancelled_is_refused(scene: Scene, together: Together) -> None:
    parent = scene.running("a")
    user, worker = scene.hand(), scene.hand()
    user.begin(cancelling(parent.id))
    late = together.commit_behind(worker, creation(parent, child_of(parent)))
    user.end()

    assert result(late) == []
    assert scene.first.read(READ_AWAITED_CHILDREN, run=parent.id) == []
    assert scene.steps(parent.id) == {}


def test_a_child_created_before_the_cancel_is_listed(scene: Scene, together: Together) -> None:
    parent = scene.running("a")
    child = child_of(parent)
    user, worker = scene.hand(), scene.hand()
    worker.begin(creation(parent, child))
    late = together.commit_behind(user, cancelling(parent.id))
    worker.end()

    assert result(late)
    assert [row[0] for row in scene.first.read(READ_AWAITED_CHILDREN, run=parent.id)] == [child.id]


@pytest.mark.parametrize("first", ["completion", "cancel"])
def test_of_completion_and_cancel_of_a_child_the_first_wins(
    scene: Scene, together: Together, first: str
) -> None:
    parent = scene.running("a")
    child = scene.claimed(scene.child(parent).id, "b")
    units = {"completion": finishing(child), "cancel": cancelling(child.id, parent)}
    winner, loser = scene.hand(), scene.hand()
    winner.begin(units.pop(first))
    late = together.commit_behind(loser, *units.values())
    winner.end()

    assert result(late) == []
    assert scene.run(child.id)["status"] == ("completed" if first == "completion" else "cancelled")
    assert scene.run(parent.id)["wakes"] == parent.wakes + 1
    assert scene.steps(parent.id)["child"].status == ("completed" if first == "completion" else "failed")


def test_a_turn_of_a_cancelled_run_is_neither_taken_nor_recorded(scene: Scene) -> None:
    run = scene.running("a")
    executing = scene.turn(run, "$turn:1", worker="b")
    scene.turn(run, "$turn:2")
    scene.do(cancelling(run.id))

    assert scene.do(turn_claim(run.id, "$turn:2", "b")) == []
    assert scene.do(turn_completion(executing, "b")) == []
    assert {step.status for step in scene.steps(run.id).values()} == {"failed"}


def test_a_turn_that_ends_while_its_run_is_cancelled_is_refused(scene: Scene, together: Together) -> None:
    run = scene.running("a")
    turn = scene.turn(run, worker="b")
    user, executor = scene.hand(), scene.hand()
    user.begin(cancelling(run.id))
    late = together.commit_behind(executor, turn_completion(turn, "b"))
    user.end()

    assert result(late) == []
    assert scene.run(run.id)["status"] == "cancelled"
