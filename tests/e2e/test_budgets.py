"""Runs that hit their budget, on a real worker: what they used is known to the cent, and nothing goes on."""

from __future__ import annotations

import asyncio
import re
import threading
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from backends import on_both
from models.servers import Answer, Recorder, Seen, chat_answer
from weather import agent_of, call_of, weather

from polos import Agent, AgentResult, Polos, UsageLimits, max_cost

pytestmark = pytest.mark.timeout(120)
PRICE = (11 * 2.5 + 7 * 10.0) / 1e6  # of the recorder's answers, by LiteLLM's table for gpt-4o
_numbers = count(1)


def limited(told: Recorder, limits: UsageLimits | None, **options: Any) -> Agent:
    return Agent(
        id=f"e2e-limited-{next(_numbers)}",
        provider="openai",
        model="gpt-4o",
        tools=[weather],
        provider_base_url=told.url,
        provider_llm_api="chat_completions",
        usage_limits=limits,
        **options,
    )


def again() -> Answer:
    return Answer(chat_answer(calls=[call_of("e2e_weather", '{"city": "Paris"}')]))


def session() -> str:
    return f"budget-{next(_numbers)}"


@on_both
async def test_a_run_that_has_spent_its_budget_ends_before_the_next_call(
    polos: Polos, told: Recorder
) -> None:
    told.answers(*(again() for _ in range(4)))
    handle = await limited(told, UsageLimits(max_cost=1.5 * PRICE)).invoke(polos, {"input": "Paris?"})
    record = await polos.wait(handle.id, timeout_seconds=40)
    assert (record["status"], record["retry_count"]) == ("failed", 0)
    assert re.search(r"max_cost=.* is used up: \$0\.000195 in 2 model calls", record["error"])
    assert len(told.seen) == 2
    assert record["usage"]["cost"] == pytest.approx(2 * PRICE)
    tree = await polos.usage("model", run_id=handle.id, since=timedelta(hours=1))
    assert [(row.of, row.calls) for row in tree.rows] == [("openai/gpt-4o", 2)]
    assert tree.total.cost == pytest.approx(2 * PRICE)


@on_both
async def test_runs_at_once_share_the_limit_of_their_session(polos: Polos, told: Recorder) -> None:
    """Each checks before each call: what was under way is finished, and no more begun."""
    told.answers(*(again() for _ in range(12)))
    agent, shared = limited(told, None), session()
    limits = UsageLimits(max_requests=5, scope="session")
    payload = {"input": "Paris?", "usage_limits": limits.model_dump(exclude_none=True)}
    handles = [await agent.invoke(polos, payload, session_id=shared) for _ in range(2)]
    records = await asyncio.gather(*(polos.wait(handle.id, timeout_seconds=40) for handle in handles))
    assert {record["status"] for record in records} == {"failed"}
    assert all(f"session {shared}" in record["error"] for record in records)
    calls = (await polos.usage(session=shared)).total.calls
    assert calls in (5, 6)  # one of the two may have been under way when the other reached the limit
    assert calls == len(told.seen) == sum(record["usage"]["calls"] for record in records)


@on_both
async def test_failed_attempts_cost_what_they_cost(polos: Polos, told: Recorder) -> None:
    told.answers(
        Answer({"error": {"message": "busy"}}, status=503),
        Answer(chat_answer()),
        Answer(chat_answer("Mild.")),
    )
    handle = await agent_of(told).invoke(polos, {"input": "Paris?"})
    record = await polos.wait(handle.id, timeout_seconds=30)
    result: AgentResult = (await handle.get(polos))["result"]
    assert record["status"] == "completed"
    assert record["usage"]["calls"] == 3  # turned down, empty, answered
    assert record["usage"]["cost"] == pytest.approx(2 * PRICE)
    assert result.usage.cost == pytest.approx(2 * PRICE)
    assert result.usage.total_tokens == record["usage"]["total_tokens"] == 36


async def test_a_call_that_is_cancelled_with_its_run_is_counted(polos: Polos, told: Recorder) -> None:
    asked, let_go = threading.Event(), threading.Event()

    def hang(_: Seen) -> Answer:
        asked.set()
        let_go.wait(50)
        return Answer(cut=True)

    told.answer = hang
    handle = await limited(told, None).invoke(polos, {"input": "Say something. " * 20})
    assert await asyncio.to_thread(asked.wait, 30)
    assert await polos.cancel_execution(handle.id)
    used: dict[str, Any] = {"calls": 0}
    async with asyncio.timeout(30):
        while not used["calls"]:
            await asyncio.sleep(0.05)
            used = (await polos.get_execution(handle.id))["usage"]
    let_go.set()
    assert used["calls"] == 1
    assert used["input_tokens"] > 50  # estimated: nobody heard the end of it
    assert used["output_tokens"] == 0
    assert used["cost"] == pytest.approx(used["input_tokens"] * 2.5 / 1e6)


async def test_an_agent_stops_in_good_order_once_it_has_cost_enough(polos: Polos, told: Recorder) -> None:
    told.answers(*(again() for _ in range(4)))
    agent = limited(told, None, stop_conditions=[max_cost(limit=1.5 * PRICE)])
    result = await agent.run(polos, "Paris?")
    assert (result.stop_reason, result.total_steps) == ("stop_condition", 2)
