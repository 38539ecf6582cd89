"""Workers that ask before each model call: together they keep to the limit, whatever becomes of Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from both import on_both, on_postgres
from services import valkey

from polos.agents.rate_limits import RateLimits, allowance_name, refusal
from polos.allowances import Permit, Verdict
from polos.clock import SYSTEM_CLOCK
from polos.journal.allowances import JournalAllowances
from polos.journal.database import Database
from polos.journal.writer import Journal
from polos.model_limits import parse_limits
from polos.models.request import ModelRequest
from polos.settings import Settings
from polos.streaming.allowances import SharedAllowances
from polos.streaming.server import RedisServer

WORKERS = 8
pytestmark = pytest.mark.timeout(120)


def request(model: str = "gpt-4o", **values: Any) -> ModelRequest:
    given = {"provider": "openai", "model": model, "messages": [{"role": "user", "content": "hi"}]}
    return ModelRequest(**{**given, "provider_kwargs": {"api_key": "k"}, **values})


@dataclass
class Fleet:
    """Workers of one project, and what they tell one another."""

    workers: list[RateLimits]
    told: list[str] = field(default_factory=list)


def fleet_of(
    database: Database, server: RedisServer, limits: str, **settings: Any
) -> tuple[Fleet, list[Journal]]:
    fleet = Fleet([])
    journals = [Journal.open(database) for _ in range(WORKERS)]
    for journal in journals:
        shared = SharedAllowances(server, prefix="fleet:")
        stored = JournalAllowances(journal, "p")
        given = Settings(project_id="p", model_limits=parse_limits(limits), **settings)
        fleet.workers.append(RateLimits(shared, stored, given, SYSTEM_CLOCK, tell=fleet.told.append))
    return fleet, journals


MakeFleet = Callable[..., Fleet]


@pytest.fixture
async def make_fleet(database: Database, server: RedisServer) -> AsyncIterator[MakeFleet]:
    with server.blocking_client(timeout_seconds=5.0) as client:
        client.flushall()
    made: list[tuple[Fleet, list[Journal]]] = []

    def make(limits: str, *, redis: RedisServer = server, **settings: Any) -> Fleet:
        made.append(fleet_of(database, redis, limits, **settings))
        return made[-1][0]

    yield make
    for fleet, journals in made:
        await asyncio.gather(*(worker.close() for worker in fleet.workers))
        for journal in journals:
            await journal.close()


@dataclass(frozen=True)
class Began:
    """A call that began, between two moments: asking takes a while itself."""

    earliest: float
    latest: float


async def turn(worker: RateLimits, ledger: list[Began], gone: list[int]) -> None:
    """Do as a turn does: ask, come back when told to, begin."""
    loop, ticket = asyncio.get_running_loop(), None
    while True:
        before = loop.time()
        permit = await worker.ask(request(), ticket)
        after, seconds = loop.time(), permit.answer.seconds
        if permit.answer.verdict is Verdict.GO:
            ledger.append(Began(before + seconds, after + seconds))
            return
        gone.append(1)
        ticket = permit.answer.ticket
        await asyncio.sleep(seconds)


def most_in_a_second(ledger: list[Began]) -> int:
    """Return how many calls began in one second for certain."""
    return max(
        sum(1 for other in ledger if other.earliest >= first.earliest and other.latest < first.earliest + 1.0)
        for first in ledger
    )


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@on_postgres
async def test_eight_workers_keep_to_ten_a_second_although_redis_forgets(
    make_fleet: MakeFleet, server: RedisServer
) -> None:
    fleet = make_fleet("openai/gpt-4o=10rps")
    ledger: list[Began] = []
    gone: list[int] = []
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(turn(fleet.workers[number % WORKERS], ledger, gone))
        for forgotten_after in (6, 16):
            await _until(lambda after=forgotten_after: len(ledger) > after)
            with server.blocking_client(timeout_seconds=5.0) as client:
                client.flushall()
            for number in range(5):
                group.create_task(turn(fleet.workers[number], ledger, gone))
    assert len(ledger) == 30
    assert most_in_a_second(ledger) <= 11
    assert len(gone) >= 10, "they waited elsewhere, not in place"


@on_both
async def test_workers_that_lose_redis_and_find_it_again_keep_to_the_limit(make_fleet: MakeFleet) -> None:
    with valkey() as url:
        fleet = make_fleet("*=10rps", redis=RedisServer.from_url(f"{url}/0"))
        ledger: list[Began] = []
        gone: list[int] = []
        turns = [
            asyncio.create_task(turn(fleet.workers[number % WORKERS], ledger, gone)) for number in range(20)
        ]
        await _until(lambda: len(ledger) > 7)
    await asyncio.gather(*turns)
    assert len(ledger) == 20
    assert most_in_a_second(ledger) <= 11


async def test_each_model_and_each_key_has_an_allowance_of_its_own(make_fleet: MakeFleet) -> None:
    worker = make_fleet("openai/*=1rpm").workers[0]
    for asked in (
        request("one"),
        request("two"),
        request("one", provider_kwargs={"api_key": "other"}),
        request("one", provider_base_url="http://elsewhere"),
    ):
        assert (await worker.ask(asked, None)).answer.verdict is Verdict.GO
    waiting = await worker.ask(request("one"), None)
    assert waiting.answer.verdict is Verdict.WAIT
    assert waiting.answer.seconds == pytest.approx(60, abs=10)


def test_a_key_is_not_to_be_seen_in_the_name() -> None:
    name = allowance_name("p", request(provider_kwargs={"api_key": "sk-very-secret"}))
    assert name.startswith("p:openai/gpt-4o:")
    assert "secret" not in name


async def test_a_model_without_a_limit_costs_nothing(make_fleet: MakeFleet) -> None:
    away = RedisServer.from_url("redis://127.0.0.1:1/0")
    permit = await make_fleet("anthropic/*=1rpm", redis=away).workers[0].ask(request(), None)
    assert (permit.name, permit.answer.verdict) == ("", Verdict.GO)


async def test_tokens_are_estimated_and_then_corrected(make_fleet: MakeFleet) -> None:
    """400 characters and 9,900 tokens of answer are 10,000 of 60,000 a minute: ten seconds."""
    worker, other = make_fleet("openai/gpt-4o=60000tpm").workers[:2]
    asked = request(messages=[{"role": "user", "content": "x" * 396}], max_output_tokens=9900)
    first = await worker.ask(asked, None)
    assert first.cost == pytest.approx(10.0, abs=0.1)
    worker.settle(first, 10)
    await _until(lambda: all("allowance" not in task.get_name() for task in asyncio.all_tasks()))
    assert (await other.ask(asked, None)).answer.verdict is Verdict.GO


async def test_an_image_does_not_count_by_its_letters(make_fleet: MakeFleet) -> None:
    worker = make_fleet("openai/gpt-4o=60000tpm").workers[0]
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 400_000}
    asked = request(messages=[{"role": "user", "content": [image]}], max_output_tokens=0)
    assert (await worker.ask(asked, None)).cost == pytest.approx(1.0, abs=0.1)


async def test_a_pause_that_a_provider_wants_is_kept_by_all(make_fleet: MakeFleet) -> None:
    fleet = make_fleet("anthropic/*=5rpm")
    first, second, third = fleet.workers[:3]
    await first.pause(request(), 120.0)
    [notice] = fleet.told
    second.told(notice)
    for worker in (first, second):
        permit = await worker.ask(request(), None)
        assert permit.answer.verdict is Verdict.WAIT
        assert permit.answer.seconds == pytest.approx(120, abs=20)
    assert (await third.ask(request(), None)).answer.verdict is Verdict.GO, "it was told nothing"
    assert json.loads(notice)["name"] == allowance_name("p", request())


async def test_a_pause_counts_for_models_with_a_limit_wherever_it_is_asked(make_fleet: MakeFleet) -> None:
    fleet = make_fleet("openai/*=600rpm")
    await fleet.workers[0].pause(request(), 120.0)
    permit = await fleet.workers[5].ask(request(), None)
    assert permit.answer.seconds == pytest.approx(120, abs=20)


async def test_a_pause_without_redis_is_the_workers_own(make_fleet: MakeFleet) -> None:
    away = RedisServer.from_url("redis://127.0.0.1:1/0")
    worker = make_fleet("anthropic/*=5rpm", redis=away).workers[0]
    await worker.pause(request(), 120.0)
    assert (await worker.ask(request(), None)).answer.seconds == pytest.approx(120, abs=20)


async def test_pauses_may_be_each_turns_own(make_fleet: MakeFleet) -> None:
    fleet = make_fleet("openai/*=6000rpm", model_pauses="alone")
    await fleet.workers[0].pause(request(), 120.0)
    assert not fleet.told
    assert (await fleet.workers[0].ask(request(), None)).answer.verdict is Verdict.GO


async def test_a_call_that_would_wait_too_long_is_refused_with_advice(make_fleet: MakeFleet) -> None:
    worker = make_fleet("openai/*=1rpm", model_max_wait_seconds=30.0).workers[0]
    await worker.ask(request(), None)
    permit: Permit = await worker.ask(request(), None)
    assert permit.answer.verdict is Verdict.REFUSED
    error = refusal(permit, request(), Settings(model_max_wait_seconds=30.0))
    assert not error.retryable
    assert "POLOS_MODEL_LIMITS" in str(error)
