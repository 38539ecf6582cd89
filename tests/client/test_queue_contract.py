"""Queues and the times of starts, the same straight to the journal and over HTTP."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from pathlib import Path

import pytest
from offered import Gate

from polos import PolosClient
from polos.transport import RunRequest

pytestmark = pytest.mark.timeout(120)
_numbers = count(1)


def word() -> str:
    """Return a name that no other test has."""
    return f"queue-{time.time_ns()}-{next(_numbers)}"


async def test_a_queue_made_on_the_fly_limits_its_runs_and_is_listed(
    client: PolosClient, tmp_path: Path
) -> None:
    queue = word()
    requests = [
        RunRequest(
            workflow_id="client-gate",
            payload=Gate(file=str(tmp_path / word())).model_dump(),
            queue_name=queue,
            queue_concurrency_limit=1,
            concurrency_key="ann",
        )
        for _ in range(3)
    ]
    handles = await client.start_runs(requests)
    [found] = [one for one in await client.list_queues() if one.name == queue]
    assert (found.concurrency_limit, found.held, found.pending) == (1, 1, 2)
    assert [(lane.concurrency_key, lane.held, lane.pending) for lane in found.keys] == [("ann", 1, 2)]
    for handle, request in zip(handles, requests, strict=True):
        await asyncio.to_thread(Path(request.payload["file"]).touch)
        assert (await client.wait(handle.id, timeout_seconds=30))["status"] == "completed"
    [found] = [one for one in await client.list_queues() if one.name == queue]
    assert (found.held, found.pending, found.keys) == (0, 0, [])


async def test_a_limit_that_exists_is_not_changed_by_a_start(client: PolosClient) -> None:
    queue = word()
    for limit in (4, 9):
        handle = await client.invoke(
            "client-double", {"n": 1}, queue_name=queue, queue_concurrency_limit=limit
        )
        await client.wait(handle.id, timeout_seconds=30)
    assert [one.concurrency_limit for one in await client.list_queues() if one.name == queue] == [4]


async def test_a_delayed_run_starts_no_earlier(client: PolosClient) -> None:
    begun = time.monotonic()
    handle = await client.invoke("client-double", {"n": 1}, delay_seconds=0.5)
    await client.wait(handle.id, timeout_seconds=30)
    assert time.monotonic() - begun >= 0.5


async def test_debounced_starts_collapse_into_the_last(client: PolosClient) -> None:
    key = word()
    handles = [
        await client.invoke("client-double", {"n": n}, debounce_key=key, debounce_seconds=1.0)
        for n in (1, 2, 3)
    ]
    assert len({handle.id for handle in handles}) == 1
    record = await client.wait(handles[0].id, timeout_seconds=30)
    assert record["result"] == {"n": 6}


async def test_the_concurrency_key_of_a_run_is_on_record(client: PolosClient) -> None:
    plain, keyed = await asyncio.gather(
        client.invoke("client-double", {"n": 1}),
        client.invoke("client-double", {"n": 1}, concurrency_key="k", priority=9),
    )
    assert (await client.get_execution(plain.id))["concurrency_key"] is None
    assert (await client.get_execution(keyed.id))["concurrency_key"] == "k"


@pytest.mark.parametrize(
    "options",
    [
        {"priority": 10},
        {"delay_seconds": -1},
        {"debounce_key": "k"},
        {"debounce_key": "k", "debounce_seconds": 1, "idempotency_key": "i"},
        {"queue_concurrency_limit": -1},
    ],
    ids=str,
)
async def test_what_cannot_be_is_refused(client: PolosClient, options: dict) -> None:
    with pytest.raises(ValueError, match=r"give|belong together|leave them out"):
        await client.invoke("client-double", {"n": 1}, **options)
