"""A server that comes back without commits it had answered: nobody goes on from what it has lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace

import psycopg
import pytest
from scenes import DONE, Scene, recording, turn_completion

from polos.engine.execution import Execution
from polos.engine.tasks import install_task_factory
from polos.journal.database import Database
from polos.journal.runs import Claim
from polos.journal.statements import Params, Rows, Statement, Unit
from polos.journal.steps import StepRow
from polos.journal.workers import READ_CLOCK
from polos.journal.writer import Journal, PostgresBackend
from polos.worker.losses import find_lost

TURN = "$turn:1"


class CrashingBackend:
    """The real one; after `crash` both its connections find another start of the server."""

    def __init__(self, database: Database) -> None:
        self._real = PostgresBackend(database)

    async def crash(self) -> None:
        for connection in (self._real._writes, self._real._reads):
            await connection.close()
            connection._server = "an earlier start"

    async def commit(self, units: Sequence[Unit]) -> list[Rows]:
        return await self._real.commit(units)

    async def read(self, statement: Statement, params: Params) -> Rows:
        return await self._real.read(statement, params)

    async def close(self) -> None:
        await self._real.close()


@pytest.fixture
def scene(postgres_only: Database) -> Scene:
    return Scene(postgres_only)


@pytest.fixture
async def server(scene: Scene) -> CrashingBackend:
    return CrashingBackend(scene.database)


@pytest.fixture
async def journal(scene: Scene, server: CrashingBackend) -> AsyncIterator[Journal]:
    install_task_factory(asyncio.get_running_loop())
    opened = Journal(server)
    yield opened
    await opened.close()
    scene.close()


def forget(database: Database, run: Claim, *steps: str, seq: int) -> None:
    """Undo what the crash undid."""
    with psycopg.connect(database.conninfo, autocommit=True) as admin:
        admin.execute("DELETE FROM step WHERE run_id = %s AND name = ANY(%s)", (run.id, list(steps)))
        admin.execute("UPDATE run SET seq = %s WHERE id = %s", (seq, run.id))


async def executing(journal: Journal, run: Claim, *steps: str) -> Execution:
    """Return an execution that has recorded these steps."""
    execution = Execution(run, journal, worker_id="a")
    for position, name in enumerate(steps):
        [(seq, _)] = await journal.do(recording(run, "a", name))
        execution.record(step(name, position, seq))
    return execution


def step(name: str, position: int, seq: int) -> StepRow:
    values = {"status": "completed", "tries": 1, "output": DONE.output, "output_schema": None}
    return StepRow(name, "run", position, seq, **values, error=None, child_id=None)  # type: ignore[arg-type]


def watched(journal: Journal, *executions: Execution) -> None:
    """Have the journal compare these after a restart, as a worker does."""
    runtime = SimpleNamespace(journal=journal, executions={each.run_id: each for each in executions})
    journal.writer.find_lost = lambda: find_lost(runtime)  # type: ignore[arg-type]


async def test_a_run_of_which_something_is_lost_writes_no_more_and_its_neighbour_goes_on(
    scene: Scene, server: CrashingBackend, journal: Journal
) -> None:
    lost, whole = scene.running("a"), scene.running("a")
    executions = [await executing(journal, run, "first", "second") for run in (lost, whole)]
    watched(journal, *executions)
    forget(scene.database, lost, "second", seq=1)
    await server.crash()

    answers = await asyncio.gather(*(journal.do(recording(run, "a", "third")) for run in (lost, whole)))
    assert [bool(answer) for answer in answers] == [False, True]
    assert set(scene.steps(lost.id)) == {"first"}
    assert set(scene.steps(whole.id)) == {"first", "second", "third"}
    assert [execution.closing is not None for execution in executions] == [True, False]


async def test_what_others_have_written_meanwhile_hides_no_loss(
    scene: Scene, server: CrashingBackend, journal: Journal
) -> None:
    run = scene.running("a")
    execution = await executing(journal, run, "first", "second")
    watched(journal, execution)
    forget(scene.database, run, "second", seq=7)
    await server.crash()

    assert await journal.do(recording(run, "a", "third")) == []


async def test_a_run_that_only_waits_is_dropped_too(
    scene: Scene, server: CrashingBackend, journal: Journal
) -> None:
    """Its child may be gone: nothing would ever wake it. The audit's next read finds out."""
    run = scene.running("a")
    execution = await executing(journal, run, "first")
    watched(journal, execution)
    forget(scene.database, run, "first", seq=0)
    await server.crash()

    await journal.read(READ_CLOCK)
    async with asyncio.timeout(20):
        while execution.closing is None:
            await asyncio.sleep(0.005)


async def test_what_is_read_across_a_crash_is_read_again(
    scene: Scene, server: CrashingBackend, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before a crash that the writer notices meanwhile may be lost, and counts not."""
    run, other = scene.running("a"), scene.running("a")
    turn = scene.turn(run, TURN, worker="b")
    execution = Execution(run, journal, worker_id="a")
    wakes, seq = run.wakes, scene.run(run.id)["seq"]
    scene.do(turn_completion(turn, "b"))
    read = server.read

    async def crash_between(statement: Statement, params: Params) -> Rows:
        rows = await read(statement, params)
        monkeypatch.setattr(server, "read", read)
        with psycopg.connect(scene.database.conninfo, autocommit=True) as admin:
            admin.execute("UPDATE step SET seq = NULL, status = 'running' WHERE run_id = %s", (run.id,))
            admin.execute("UPDATE run SET seq = %s, wakes = %s WHERE id = %s", (seq, wakes, run.id))
        await server.crash()
        assert await journal.do(recording(other, "a"))  # the writer finds the server restarted
        return rows

    monkeypatch.setattr(server, "read", crash_between)
    await execution.refresh()
    assert (execution.seen_wakes, execution.is_stale) == (wakes, True)
