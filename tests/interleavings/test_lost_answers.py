"""A commit whose answer is lost, one that never arrived, a bad neighbour, a caller that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from scenes import (
    DONE,
    Scene,
    child_of,
    claim,
    creation,
    finishing,
    recording,
    scheduling,
    turn_claim,
    turn_completion,
)
from sqlalchemy import select

from polos.errors import JournalUnavailableError
from polos.journal.database import Database
from polos.journal.ends import Ending, finish_run
from polos.journal.memory import M, NewMessage, Remembered, SessionKey
from polos.journal.runs import Claim, claim_from
from polos.journal.statements import Params, Part, Rows, Statement, Unit
from polos.journal.states import RunStatus
from polos.journal.turns import complete_turn, settle_turn
from polos.journal.writer import Backend, Journal, PostgresBackend, SqliteBackend


class LossyBackend:
    """The real backend on a bad line: as told, it loses requests, or the answers to them."""

    def __init__(self, database: Database) -> None:
        self._real: Backend = SqliteBackend(database) if database.is_sqlite else PostgresBackend(database)
        self.lost_requests = 0
        self.lost_answers = 0
        self.commits = 0

    async def commit(self, units: Sequence[Unit]) -> list[Rows]:
        if self.lost_requests:
            self.lost_requests -= 1
            raise JournalUnavailableError("the request was lost")
        self.commits += 1
        answers = await self._real.commit(units)
        if self.lost_answers:
            self.lost_answers -= 1
            raise JournalUnavailableError("the answer was lost")
        return answers

    async def read(self, statement: Statement, params: Params) -> Rows:
        return await self._real.read(statement, params)

    async def close(self) -> None:
        await self._real.close()


@pytest.fixture
async def line(scene: Scene) -> LossyBackend:
    return LossyBackend(scene.database)


@pytest.fixture
async def journal(line: LossyBackend) -> AsyncIterator[Journal]:
    opened = Journal(line)
    yield opened
    await opened.close()


def claimed(scene: Scene) -> tuple[Unit, Callable[[], object]]:
    run_id = scene.queued()
    return claim(run_id, "a"), lambda: scene.run(run_id)["attempt"] == 1


def recorded(scene: Scene) -> tuple[Unit, Callable[[], object]]:
    run = scene.running("a")
    return recording(run, "a"), lambda: scene.steps(run.id)["step"].seq == run.seq + 1


def scheduled(scene: Scene) -> tuple[Unit, Callable[[], object]]:
    run = scene.running("a")
    return scheduling(run), lambda: len(scene.steps(run.id)) == 1


def children_created(scene: Scene) -> tuple[Unit, Callable[[], object]]:
    run = scene.running("a")
    children = [child_of(run, "one"), child_of(run, "two")]
    return creation(run, *children), lambda: len(scene.steps(run.id)) == 2 and scene.run(children[0].id)


def turn_claimed(scene: Scene) -> tuple[Unit, Callable[[], object]]:
    turn = scene.turn(scene.running("a"))
    unit = turn_claim(turn.run_id, turn.name, "b")
    return unit, lambda: scene.steps(turn.run_id)[turn.name].tries == 1


def turn_completed(scene: Scene) -> tuple[Unit, Callable[[], object]]:
    run = scene.running("a")
    turn = scene.turn(run, worker="b")
    return turn_completion(turn, "b"), lambda: scene.run(run.id)["wakes"] == run.wakes + 1


def turn_settled(scene: Scene) -> tuple[Unit, Callable[[], object]]:
    return _settled(scene, scene.running("a"))


def turn_of_child_settled(scene: Scene) -> tuple[Unit, Callable[[], object]]:
    parent = scene.running("a")
    return _settled(scene, scene.claimed(scene.child(parent).id, "a"))


def _settled(scene: Scene, run: Claim) -> tuple[Unit, Callable[[], object]]:
    """A guarded answer has passed: its event has one number, and the tree no other."""
    turn = scene.turn(run, worker="b")
    scene.do(complete_turn(turn, "b", DONE, root_id=run.root_id, ring_again=5.0, told=False))
    told = scene.run(run.root_id)["event_seq"]
    where = {"position": 1, "turn": turn.name, "root_id": run.root_id, "worker": "a", "questions": "$turn:1."}
    unit = settle_turn(run.id, run.attempt, "$1.guardrails", output='"passed"', **where)

    def done_once() -> bool:
        steps = scene.steps(run.id)
        is_told_once = scene.run(run.root_id)["event_seq"] == told + 1
        return is_told_once and steps[turn.name].output == '"passed"' and "$1.guardrails" in steps

    return unit, done_once


def run_finished(scene: Scene) -> tuple[Unit, Callable[[], object]]:
    run = scene.running("a")
    return finishing(run), lambda: scene.run(run.id)["output"] == '"end"'


def child_finished(scene: Scene) -> tuple[Unit, Callable[[], object]]:
    parent = scene.running("a")
    child = scene.claimed(scene.child(parent).id, "b")
    return finishing(child), lambda: scene.run(parent.id)["wakes"] == parent.wakes + 1


def run_remembered(scene: Scene) -> tuple[Unit, Callable[[], object]]:
    """An agent's run ends: what it leaves in its session is there once."""
    run = scene.running("a", kind="agent", session_id="talk")
    key = SessionKey("default", "talk", run.name)
    left = Remembered(key, (NewMessage('"ask"', 1), NewMessage('"answer"', 1)), given=1)
    unit = finish_run(run.id, run.attempt, Ending(RunStatus.COMPLETED), root_id=run.root_id, remembered=left)
    said = Statement(select(M.number, M.item).order_by(M.number))
    return unit, lambda: scene.first.read(said) == [(1, '"ask"'), (2, '"answer"')]


Prepare = Callable[[Scene], tuple[Unit, Callable[[], object]]]
EVERY: list[Prepare] = [
    claimed,
    recorded,
    scheduled,
    children_created,
    turn_claimed,
    turn_completed,
    turn_settled,
    turn_of_child_settled,
    run_finished,
    run_remembered,
    child_finished,
]
every_unit = pytest.mark.parametrize("prepare", EVERY)


@every_unit
async def test_a_unit_whose_answer_was_lost_is_known_to_stand_and_is_done_once(
    scene: Scene, line: LossyBackend, journal: Journal, prepare: Prepare
) -> None:
    unit, done_once = prepare(scene)
    line.lost_answers = 1

    assert await journal.do(unit)
    assert line.commits == 2
    assert done_once()


@every_unit
async def test_a_unit_that_did_not_arrive_is_sent_again(
    scene: Scene, line: LossyBackend, journal: Journal, prepare: Prepare
) -> None:
    unit, done_once = prepare(scene)
    line.lost_requests = 2

    assert await journal.do(unit)
    assert done_once()


async def test_every_unit_of_a_batch_whose_answer_was_lost_is_known_to_stand(
    scene: Scene, line: LossyBackend, journal: Journal
) -> None:
    prepared = [prepare(scene) for prepare in EVERY]
    line.lost_answers = 1

    answers = await asyncio.gather(*(journal.do(unit) for unit, _ in prepared))
    assert all(answers)
    assert line.commits == 2
    assert all(done_once() for _, done_once in prepared)


async def test_a_claim_whose_answer_was_lost_is_answered_with_the_run(
    scene: Scene, line: LossyBackend, journal: Journal
) -> None:
    run_id = scene.queued(input='{"n":1}')
    line.lost_answers = 1

    [row] = await journal.do(claim(run_id, "a"))
    assert (claim_from(row).attempt, claim_from(row).input) == (1, '{"n":1}')


@pytest.mark.parametrize("prepare", [claimed, recorded, turn_claimed, turn_completed, run_finished])
async def test_a_unit_that_another_worker_was_faster_with_is_refused_when_repeated(
    scene: Scene, line: LossyBackend, journal: Journal, prepare: Prepare
) -> None:
    """The first sending is lost before it arrives; meanwhile the row goes to somebody else."""
    unit, _ = prepare(scene)
    line.lost_requests = 1
    answer = asyncio.ensure_future(journal.do(unit))
    while line.lost_requests:
        await asyncio.sleep(0)
    _give_away(scene, unit)

    assert await answer == []


def _give_away(scene: Scene, unit: Unit) -> None:
    """Let worker ``z`` have what the unit is about."""
    params = unit.parts[0].params
    for worker in ("a", "b"):
        scene.lose(worker)
    name = params.get("name")
    if name is not None and name.startswith("$turn"):
        assert scene.do(turn_claim(params["run"], name, "z"))
    else:
        assert scene.do(claim(params["run"], "z"))


# -- bad neighbours


def too_big(unit: Unit) -> Unit:
    """The unit with a number that no database stores."""
    return _with(unit, position=2**70)


def with_nul(unit: Unit) -> Unit:
    """The unit with a text that PostgreSQL does not store."""
    return _with(unit, output='"\0"')


def _with(unit: Unit, **values: Any) -> Unit:
    def spoilt(parts: tuple[Part, ...]) -> tuple[Part, ...]:
        return tuple(replace(part, params={**part.params, **values}) for part in parts)

    return replace(unit, parts=spoilt(unit.parts), fused=spoilt(unit.fused))


@pytest.mark.parametrize("spoil", [too_big, with_nul])
async def test_a_unit_that_cannot_be_stored_fails_alone(
    scene: Scene, journal: Journal, spoil: Callable[[Unit], Unit]
) -> None:
    if spoil is with_nul and scene.database.is_sqlite:
        pytest.skip("SQLite stores NUL")
    runs = [scene.running("a") for _ in range(5)]
    units = [recording(run, "a") for run in runs]
    units[2] = spoil(units[2])

    answers = await asyncio.wait_for(
        asyncio.gather(*(journal.do(unit) for unit in units), return_exceptions=True), 20
    )
    assert isinstance(answers[2], Exception)
    assert not isinstance(answers[2], JournalUnavailableError)
    assert all(answer and isinstance(answer, list) for place, answer in enumerate(answers) if place != 2)
    assert [len(scene.steps(run.id)) for run in runs] == [1, 1, 0, 1, 1]
    assert scene.run(runs[2].id)["seq"] == 0


async def test_a_lone_unit_that_cannot_be_stored_fails_and_the_next_one_is_stored(
    scene: Scene, journal: Journal
) -> None:
    run = scene.running("a")
    with pytest.raises(Exception, match=r"range|large|out of"):
        await asyncio.wait_for(journal.do(too_big(recording(run, "a"))), 20)

    assert await journal.do(recording(run, "a"))
    assert scene.run(run.id)["seq"] == 1


# -- callers that go away


async def test_what_a_cancelled_caller_sent_stands(scene: Scene, journal: Journal) -> None:
    run, other = scene.running("a"), scene.running("a")
    caller = asyncio.ensure_future(journal.do(recording(run, "a")))
    await asyncio.sleep(0)  # it is in the queue of the writer
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert await journal.do(recording(other, "a"))  # a later batch, or the same one

    assert scene.steps(run.id)["step"].output == DONE.output


async def test_a_cancelled_caller_takes_no_neighbour_along(scene: Scene, journal: Journal) -> None:
    runs: list[Claim] = [scene.running("a") for _ in range(4)]
    callers = [asyncio.ensure_future(journal.do(recording(run, "a"))) for run in runs]
    await asyncio.sleep(0)
    callers[1].cancel()

    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert all(isinstance(answer, list) and answer for place, answer in enumerate(answers) if place != 1)


# -- a connection that is really lost


async def test_a_writer_goes_on_after_its_connection_was_cut(postgres_only: Database) -> None:
    scene = Scene(postgres_only)
    journal = Journal.open(postgres_only)
    run = scene.running("a")
    assert await journal.do(recording(run, "a", "before"))
    with psycopg.connect(postgres_only.conninfo, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND query LIKE '%INSERT INTO step%'"
        )

    assert await asyncio.wait_for(journal.do(recording(run, "a", "after")), 20)
    scene.close()
    again = Scene(postgres_only)
    assert set(again.steps(run.id)) == {"before", "after"}
    again.close()
    await journal.close()
