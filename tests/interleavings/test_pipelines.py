"""What a transaction sends goes to the server at once, and comes back to its units."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hands import PATIENCE_SECONDS
from psycopg.rows import dict_row
from scenes import DONE, Scene, child_of, creation, recording

from polos.journal import pipelines
from polos.journal.children import create_children
from polos.journal.database import Database
from polos.journal.postgres import AsyncPostgresConnection
from polos.journal.queues import Limits, declare_queue
from polos.journal.runs import Claim
from polos.journal.statements import Unit

LONG = replace(DONE, output=f'"{"x" * 20_000}"')  # more than libpq keeps before it writes
BLOCKED_SECONDS = 0.006  # more than the driver lets a loop be busy
PREPARED_AFTER = 5


@pytest.fixture
def scene(postgres_only: Database) -> Scene:
    return Scene(postgres_only)


@pytest.fixture
async def connection(scene: Scene) -> AsyncIterator[AsyncPostgresConnection]:
    database = scene.database
    opened = AsyncPostgresConnection(database.conninfo, database.dialect)
    yield opened
    await opened.close()
    scene.close()


@pytest.mark.parametrize(("outcome", "steps"), [(DONE, 40), (LONG, 1)], ids=["many", "long"])
async def test_a_loop_that_is_blocked_in_a_commit_holds_no_row(
    scene: Scene, connection: AsyncPostgresConnection, outcome: Any, steps: int
) -> None:
    """At each turn of the loop another session gets the rows, though the loop stands still meanwhile."""
    runs = [scene.running("a") for _ in range(5)]
    await connection.commit([recording(run, "a", "before") for run in runs])
    batch = [recording(run, "a", f"step {n}", outcome) for run in runs for n in range(steps)]
    options = f"-c lock_timeout={PATIENCE_SECONDS}s"
    with psycopg.connect(scene.database.conninfo, autocommit=True, options=options) as other:
        committing = asyncio.ensure_future(connection.commit(batch))
        while not committing.done():
            time.sleep(BLOCKED_SECONDS)  # noqa: ASYNC251 - the loop stands still
            other.execute("SELECT 1 FROM run WHERE id = ANY(%s) FOR UPDATE", [[run.id for run in runs]])
            await asyncio.sleep(0)
    assert all(await committing)


async def test_a_driver_of_other_insides_is_given_one_command_after_the_other(
    scene: Scene, connection: AsyncPostgresConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [scene.running("a") for _ in range(3)]
    monkeypatch.setattr(pipelines, "_knows_driver", False)
    assert all(await connection.commit([recording(run, "a") for run in runs]))
    assert all(scene.first.commit(*(recording(run, "a", "more") for run in runs)))
    assert {name for run in runs for name in scene.steps(run.id)} == {"step", "more"}


async def test_what_a_failed_batch_would_have_prepared_is_prepared_by_the_next(
    scene: Scene, connection: AsyncPostgresConnection
) -> None:
    """Statements are prepared after some uses; the server never sees those behind an error."""
    runs = [scene.running("a") for _ in range(2)]

    def batch(number: int, **spoilt: Any) -> list[Unit]:
        units = [recording(run, "a", f"step {number}") for run in runs]
        [fused] = units[0].fused
        return [replace(units[0], fused=(replace(fused, params={**fused.params, **spoilt}),)), units[1]]

    for number in range(PREPARED_AFTER * 2):
        with pytest.raises(psycopg.Error):
            await connection.commit(batch(number, tries=2**40))  # does not fit its column
        assert all(await connection.commit(batch(number)))
    assert {len(scene.steps(run.id)) for run in runs} == {PREPARED_AFTER * 2}


async def test_nothing_is_sent_of_a_batch_that_cannot_be_made(
    scene: Scene, connection: AsyncPostgresConnection
) -> None:
    good, bad = scene.running("a"), scene.running("a")
    await connection.commit([recording(good, "a", "before")])
    unstorable = recording(bad, "a", outcome=replace(DONE, output='"\0"'))
    with pytest.raises(psycopg.DataError):
        await connection.commit([recording(good, "a"), unstorable])
    driver = connection._driver
    assert driver is not None
    assert driver.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert await connection.commit([recording(good, "a")])


# -- one statement and many make the same


def _children(scene: Scene, parent: Claim) -> Unit:
    """Children of all sorts: awaited and not, of a limited queue and not, with and without values."""
    scene.do(declare_queue("default", "default", "narrow", Limits(concurrency_limit=1)))
    new = [
        replace(child_of(parent, "plain"), input='{"a":1}', session_id="s", priority=7),
        replace(child_of(parent, "free"), awaited=0, run_timeout_seconds=1.5, user_id="u"),
        replace(child_of(parent, "limited"), queue="narrow", concurrency_key="k", initial_state="{}"),
    ]
    return create_children(parent.id, parent.attempt, new, positions=[3, 4, 5], ring_again=5.0)


def _made(scene: Scene, parent: Claim) -> list[dict[str, Any]]:
    """Return the rows of a run's children and of their steps, without ids of the tree and times."""
    with psycopg.connect(scene.database.conninfo, row_factory=dict_row) as reader:
        runs = reader.execute("SELECT * FROM run WHERE parent_id = %s ORDER BY created_at", [parent.id])
        steps = reader.execute("SELECT * FROM step WHERE run_id = %s ORDER BY position", [parent.id])
        found = [*runs.fetchall(), *steps.fetchall()]
    for row in found:
        for name, value in row.items():
            if name in {"created_at", "ring_at", "started_at"}:
                row[name] = value is not None
            elif isinstance(value, str):
                row[name] = value.replace(parent.id, "parent")
    return found


def test_children_are_the_same_however_they_are_created(scene: Scene) -> None:
    together, apart = scene.running("a"), scene.running("a")
    [first] = scene.do(_children(scene, together))
    [second] = scene.do(replace(_children(scene, apart), fused=()))
    assert first == second == (1,)
    made = _made(scene, together)
    assert len(made) == 6
    assert made == _made(scene, apart)
    scene.close()


def test_children_that_exist_are_left_alone_and_the_others_created(scene: Scene) -> None:
    parent = scene.running("a")
    scene.do(creation(parent, child_of(parent, "one")))
    scene.claimed(f"{parent.id}/one", "b")
    assert scene.do(creation(parent, *(child_of(parent, name) for name in ("one", "two"))))
    assert scene.run(f"{parent.id}/one")["status"] == "running"
    assert scene.run(f"{parent.id}/two")["status"] == "queued"
    assert set(scene.steps(parent.id)) == {"one", "two"}
    scene.close()
