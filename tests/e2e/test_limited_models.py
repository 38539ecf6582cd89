"""Agents whose models have limits, which conftest.py names: who waits, how, and what becomes of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from backends import on_both
from gates import until
from llmock.scenarios import Fail, Match, Reply
from models.servers import Answer, ModelServer, Recorder, chat_answer

from polos import Agent, Polos
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(120)


def _agent(model: str, told: Recorder | None = None, **options: Any) -> Agent:
    url = None if told is None else told.url  # another URL at each test: another allowance
    return Agent(id=f"e2e-{model}", provider="groq", model=model, provider_base_url=url, **options)


async def _turn(polos: Polos, run_id: str) -> dict[str, Any]:
    backend = await polos._transport.backend()
    rows = await asyncio.to_thread(backend.read_steps, run_id)
    return next((row for row in rows if row["kind"] == "turn"), {"status": None, "ticket": None})


async def _waiting(polos: Polos, run_id: str) -> dict[str, Any]:
    """Return the turn of a run once it waits for its model."""
    async with asyncio.timeout(20):
        while (turn := await _turn(polos, run_id))["ticket"] is None or turn["status"] != "scheduled":
            await asyncio.sleep(0.02)
    return turn


@on_both
async def test_a_turn_that_waits_holds_nothing_and_its_run_can_be_cancelled_at_once(
    polos: Polos, told: Recorder
) -> None:
    agent = _agent("one-a-minute", told)
    told.answers(Answer(chat_answer("hello")))
    assert (await agent.run(polos, "hi")).result == "hello"
    handle = await agent.invoke(polos, {"input": "and again"})
    turn = await _waiting(polos, handle.id)

    assert (turn["owner"], turn["tries"], turn["failures"]) == (None, 0, None)
    assert min(turn["not_before"], turn["ring_at"]) > turn["started_at"] + 30
    await polos.cancel_execution(handle.id)
    record = await polos.wait(handle.id, timeout_seconds=10)
    assert record["status"] == "cancelled"
    assert len(told.seen) == 1


@on_both
async def test_turns_that_waited_are_no_failures(polos: Polos, told: Recorder) -> None:
    """Four at once, at one a second: they go and come back."""
    agent = _agent("one-a-second", told)
    told.answers(Answer(chat_answer("hello")))
    handles = await asyncio.gather(*(agent.invoke(polos, {"input": f"{number}"}) for number in range(4)))
    records = [await polos.wait(handle.id, timeout_seconds=30) for handle in handles]

    assert {record["status"] for record in records} == {"completed"}
    turns = [await _turn(polos, handle.id) for handle in handles]
    assert [(turn["tries"], turn["failures"]) for turn in turns] == [(1, None)] * 4
    assert any(turn["ticket"] is not None for turn in turns)
    assert len(told.seen) == 4


async def test_who_would_wait_too_long_fails_with_advice(polos: Polos, told: Recorder) -> None:
    agent = _agent("one-a-day", told)
    told.answers(Answer(chat_answer("hello")))
    await agent.run(polos, "hi")
    with pytest.raises(
        RunFailedError, match=r"groq/one-a-day: its limit leaves no room .* POLOS_MODEL_LIMITS"
    ):
        await agent.run(polos, "hi")


async def test_who_would_wait_too_long_asks_another_model(
    polos: Polos, told: Recorder, model: ModelServer
) -> None:
    agent = _agent("one-a-day", told, fallback_models=["anthropic/claude-sonnet-4-5"])
    told.answers(Answer(chat_answer("one")))
    model.says("two")
    assert [(await agent.run(polos, "hi")).result for _ in range(2)] == ["one", "two"]


async def test_a_pause_that_a_provider_wants_is_everybodys(polos: Polos, model: ModelServer) -> None:
    """Another run asks that model only when the pause is over; another model is not concerned."""
    paused = Agent(id="e2e-paused", provider="together", model="paused")
    model.script(
        Fail(429, retry_after=1.5, match=Match(provider="together", model="paused")),
        Reply("hello", times=None),
    )
    first = await paused.invoke(polos, {"input": "first"})
    await until(lambda: len(model.requests) == 1)
    [refused] = model.requests
    await _failed_once(polos, first.id)
    second = await paused.invoke(polos, {"input": "second"})
    await Agent(id="e2e-unpaused", provider="together", model="unpaused").run(polos, "third")
    for handle in (first, second):
        assert (await polos.wait(handle.id, timeout_seconds=20))["status"] == "completed"

    later = [call for call in model.requests if call.model == "paused" and call is not refused]
    assert len(later) == 2
    assert min(call.started_at for call in later) >= refused.ended_at + 1.3
    model.assert_resilient()


async def _failed_once(polos: Polos, run_id: str) -> None:
    async with asyncio.timeout(20):
        while not (await _turn(polos, run_id)).get("failures"):
            await asyncio.sleep(0.02)
