"""Allowances in Redis and in the journal answer as `polos.allowances` says, to any number of workers."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from both import on_both

from polos.allowances import KEPT_SECONDS, Allowance, Answer, Question, Verdict, answer, corrected, paused
from polos.journal.allowances import JournalAllowances
from polos.journal.database import Database
from polos.journal.writer import Journal
from polos.streaming.allowances import AllowancesAwayError, SharedAllowances
from polos.streaming.server import RedisServer

START = 1_700_000_000.0


class Moved:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


@pytest.fixture
async def clock() -> Moved:
    return Moved()


@pytest.fixture
async def shared(server: RedisServer, clock: Moved) -> AsyncIterator[SharedAllowances]:
    allowances = SharedAllowances(server, prefix="test:", time=clock)
    yield allowances
    await allowances.close()


def _numbers(found: Answer) -> list[float]:
    ticket = found.ticket if found.verdict is not Verdict.REFUSED else None
    return [found.seconds, found.held, 0.0 if ticket is None else ticket - START]


@pytest.mark.parametrize("server", ["valkey", "fakeredis"], indirect=True)
@pytest.mark.parametrize("seed", range(4))
async def test_the_script_is_the_function(
    shared: SharedAllowances, clock: Moved, name: str, seed: int
) -> None:
    """Whatever is asked in whatever order: one answer, one state."""
    rng = random.Random(seed)
    state, tickets = Allowance(), [None]
    for _ in range(120):
        clock.now += rng.choice([0.0, 0.01, 0.2, 3.0]) * rng.uniform(0.9, 1.1)  # no ties
        match rng.choice(["ask", "ask", "ask", "ask", "pause", "correct"]):
            case "pause":
                seconds = rng.uniform(0.1, 2.0)
                state = paused(state, seconds, clock.now)
                await shared.pause(name, seconds)
            case "correct" if state != Allowance():
                seconds = rng.uniform(-0.3, 0.3)
                state = corrected(state, seconds)
                await shared.correct(name, seconds)
            case _:
                question = Question(
                    cost=rng.uniform(0.1, 0.5),
                    burst=rng.choice([0.0, 0.0, 1.037]),
                    ticket=rng.choice(tickets),
                    longest=rng.choice([2.0, float("inf")]),
                    held=rng.choice([0.0, 0.0, 0.413]),
                    earliest=rng.choice([0.0, 0.0, 0.071, 0.7]),
                )
                state, expected = answer(state, question, clock.now)
                counted = await shared.ask(name, question)
                assert counted.answer.verdict is expected.verdict
                assert _numbers(counted.answer) == pytest.approx(_numbers(expected), abs=0.001)
                if expected.verdict is Verdict.WAIT:
                    tickets.append(counted.answer.ticket)
    [(_, found)] = (await shared.read_all(name))[1].items()
    assert (found.gate, found.tail, found.lag, found.paused) == pytest.approx(
        (state.gate, state.tail, state.lag, state.paused), abs=0.001
    )


async def test_an_allowance_that_is_new_is_doubted_for_a_while(
    shared: SharedAllowances, clock: Moved, name: str
) -> None:
    """Redis may have lost it, and others may count in the journal."""
    assert (await shared.ask(name, Question(0.1))).is_doubted
    assert (await shared.ask(name, Question(0.1))).is_doubted
    clock.now += 16.0
    assert not (await shared.ask(name, Question(0.1))).is_doubted
    assert (await shared.ask(name, Question(0.1), was_away=True)).is_doubted


async def test_an_allowance_is_kept_until_nobody_waits_for_it_any_more(
    server: RedisServer, name: str
) -> None:
    shared = SharedAllowances(server, prefix="test:")
    for _ in range(3):
        await shared.ask(name, Question(cost=1000.0))
    with server.blocking_client(timeout_seconds=5.0) as client:
        kept = client.pttl(f"test:allowance:{name}") / 1000
    assert kept == pytest.approx(3000 + KEPT_SECONDS, abs=60)
    await shared.close()


async def test_a_redis_that_is_away_is_told_of() -> None:
    told: list[BaseException | None] = []
    away = SharedAllowances(RedisServer.from_url("redis://127.0.0.1:1/0"), prefix="test:", report=told.append)
    with pytest.raises(AllowancesAwayError):
        await away.ask("x", Question(0.1))
    assert len(told) == 1
    await away.close()


# -- the journal


@pytest.fixture
async def workers(database: Database) -> AsyncIterator[list[JournalAllowances]]:
    """Four, each with connections of its own."""
    journals = [Journal.open(database) for _ in range(4)]
    yield [JournalAllowances(journal, "p") for journal in journals]
    for journal in journals:
        await journal.close()


@on_both
async def test_workers_that_ask_the_journal_at_once_get_moments_apart(
    workers: list[JournalAllowances],
) -> None:
    asked = [worker.ask("model", Question(cost=1.0)) for worker in workers for _ in range(6)]
    answers = await asyncio.gather(*asked)
    assert sum(found.verdict is Verdict.GO for found in answers) <= 2
    tickets = sorted(found.ticket for found in answers if found.ticket is not None)
    assert len(tickets) == 24
    assert min(b - a for a, b in pairwise(tickets)) >= 0.999


@on_both
async def test_a_pause_in_the_journal_is_everybodys(workers: list[JournalAllowances]) -> None:
    await workers[0].pause("model", 300.0)
    found = await workers[1].ask("model", Question(cost=0.1))
    assert found.verdict is Verdict.WAIT
    assert 250 < found.seconds <= 300
    other = await workers[2].ask("another", Question(cost=0.1))
    assert other.verdict is Verdict.GO


@on_both
async def test_a_correction_in_the_journal_counts(workers: list[JournalAllowances]) -> None:
    await workers[0].ask("model", Question(cost=1000.0))
    await workers[1].correct("model", -1000.0)
    assert (await workers[2].ask("model", Question(cost=1.0))).verdict is Verdict.GO
