"""Runs that wait for an answer from outside, on both databases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from stream_program import asks, asks_below
from studio import Studio

from polos import ExecutionHandle, StreamEvent, events
from polos.errors import RunFailedError

pytestmark = pytest.mark.parametrize("journal_url", ["sqlite", "postgresql"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def preloads() -> str:
    return "0"


async def asked(studio: Studio, handle: ExecutionHandle) -> StreamEvent:
    """Return the next question of a run, as the programs do: in a stream of its own."""
    async for event in events.stream_workflow(studio.client, handle.root_workflow_id, handle.id):
        if (event.event_type or "").startswith("suspend_"):
            return event
    raise AssertionError("it asked nothing")


async def answer(studio: Studio, handle: ExecutionHandle, key: str, data: Any, **more: Any) -> None:
    await studio.client.resume(handle.root_workflow_id, handle.root_execution_id, key, data, **more)


async def test_an_answer_lets_a_run_go_on(studio: Studio) -> None:
    handle = await asks.invoke(studio.client, {"keys": ["first page", "second/page"]})
    for key in ("first page", "second/page"):
        event = await asked(studio, handle)
        assert event.event_type == f"suspend_{key}", "never a question that was answered"
        assert event.data["question"] == f"{key}?"
        assert event.data["_approval_url"].endswith(
            f"/approve/{handle.id}/{key.replace(' ', '%20').replace('/', '%2F')}"
        )
        await answer(studio, handle, key, {"for": key})
    record = await studio.client.wait(handle.id, timeout_seconds=30)
    assert record["result"] == [{"for": "first page"}, {"for": "second/page"}]


async def test_questions_and_answers_are_part_of_the_history(studio: Studio) -> None:
    handle = await asks.invoke(studio.client, {"keys": ["one"]})
    await asked(studio, handle)
    await answer(studio, handle, "one", {"yes": True})
    kinds = [event.event_type async for event in studio.client.follow(handle.id)]
    assert kinds == ["workflow_start", "suspend_one", "resume_one", "workflow_finish"]
    with studio.redis() as server:
        server.flushall()
    assert [event.event_type async for event in studio.client.follow(handle.id)] == kinds


async def test_of_many_answers_at_once_one_counts(studio: Studio) -> None:
    handle = await asks.invoke(studio.client, {"keys": ["race"]})
    await asked(studio, handle)
    await asyncio.gather(*(answer(studio, handle, "race", {"by": n}) for n in range(20)))
    record = await studio.client.wait(handle.id, timeout_seconds=30)
    kinds = [event.event_type async for event in studio.client.follow(handle.id)]
    assert kinds.count("resume_race") == 1
    assert record["result"][0]["by"] in range(20)


async def test_of_two_runs_that_ask_the_same_the_oldest_is_answered_first(studio: Studio) -> None:
    handle = await asks_below.invoke(studio.client, {})
    asking: list[str] = []
    async for event in studio.client.follow(handle.id):
        if event.event_type == "suspend_approve":
            asking.append(event.data["_metadata"]["execution_id"])
        if len(asking) == 2:
            break
    await answer(studio, handle, "approve", {"n": 2}, suspend_run_id=asking[1])
    await answer(studio, handle, "approve", {"n": 1})
    record = await studio.client.wait(handle.id, timeout_seconds=30)
    assert sorted(result[0]["n"] for result in record["result"]) == [1, 2]
    ended = {run: (await studio.client.get_execution(run))["result"][0]["n"] for run in asking}
    assert ended == {asking[0]: 1, asking[1]: 2}


async def test_a_question_that_nobody_answers_in_time_is_a_failed_step(studio: Studio) -> None:
    handle = await asks.invoke(studio.client, {"keys": ["late"], "timeout": 0.5})
    record = await studio.client.wait(handle.id, timeout_seconds=30)
    assert record["status"] == "failed"
    assert "Suspend 'late' timed out" in record["error"]
    await answer(studio, handle, "late", {})  # and nothing happens
    with pytest.raises(ValueError, match="no run"):
        await studio.client.resume("stream-asks", "5a0f6f6e-0000-0000-0000-000000000000", "late", {})


async def test_a_run_waits_without_its_worker(studio: Studio) -> None:
    """It is parked, and rung when the answer comes."""
    worker = studio.worker(
        POLOS_RESIDENT_SECONDS="0", POLOS_PRELOAD_MODELS="0", POLOS_DEPLOYMENT_ID="parking"
    )
    studio.client.deployment_id = "parking"
    handle = await asks.invoke(studio.client, {"keys": ["parked"]})
    while (await studio.client.get_execution(handle.id))["status"] != "waiting":
        await asyncio.sleep(0.05)
    worker.kill()
    await answer(studio, handle, "parked", {"ok": 1})
    await asyncio.to_thread(studio.worker, POLOS_DEPLOYMENT_ID="parking", POLOS_PRELOAD_MODELS="0")
    record = await studio.client.wait(handle.id, timeout_seconds=30)
    assert record["result"] == [{"ok": 1}]


async def test_a_cancelled_run_asks_no_more(studio: Studio) -> None:
    handle = await asks.invoke(studio.client, {"keys": ["gone"]})
    await asked(studio, handle)
    await handle.cancel(studio.client)
    await answer(studio, handle, "gone", {})
    found = [
        event.event_type async for event in events.stream_workflow(studio.client, "stream-asks", handle.id)
    ]
    assert found == ["workflow_cancel"]
    with pytest.raises(RunFailedError):
        await asks.run(studio.client, {"keys": ["gone"], "timeout": 0.2})
