"""Whatever a client can do, it does the same on both ways: straight to the journal, and over HTTP."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from offered import Gate, Number, double, fails, gated, listed, steps
from sites import Site

from polos import BatchWorkflowInput, PolosClient, WorkflowTimeoutError, batch_invoke
from polos.errors import (
    ConfigurationError,
    IdempotencyError,
    RunFailedError,
    SerializationError,
    ValueTooLargeError,
)
from polos.events import EventData, StreamEvent
from polos.transport import RunRequest

pytestmark = pytest.mark.timeout(120)
_numbers = count(1)


def word() -> str:
    """Return a key or topic that no other test has."""
    return f"word-{time.time_ns()}-{next(_numbers)}"


def gate(tmp_path: Path) -> Gate:
    return Gate(file=str(tmp_path / word()))


# -- starting


async def test_a_started_run_has_all_its_names(client: PolosClient) -> None:
    handle = await client.invoke("client-double", {"n": 1}, session_id="s", user_id="u")

    assert handle.workflow_id == handle.root_workflow_id == "client-double"
    assert handle.root_execution_id == handle.id
    assert (handle.session_id, handle.user_id) == ("s", "u")
    assert datetime.fromisoformat(handle.created_at or "").utcoffset() == timedelta(0)


async def test_a_session_is_made_up_where_none_is_given(client: PolosClient) -> None:
    handle = await client.invoke("client-double", {"n": 1})

    assert handle.session_id == (await client.get_execution(handle.id))["session_id"]


async def test_a_run_returns_its_result_as_the_class_it_had(client: PolosClient) -> None:
    assert await double.run(client, Number(n=4)) == Number(n=8)
    assert await listed.run(client, Number(n=4)) == [Number(n=4), Number(n=0)]


async def test_a_run_that_fails_says_why(client: PolosClient) -> None:
    handle = await fails.invoke(client, {})
    await client.cancel_execution(handle.id)  # or it would be tried again

    with pytest.raises(RunFailedError, match=r"failed|cancelled"):
        fails._result_of(await client.wait(handle.id), handle.id, None)


async def test_everything_that_is_asked_for_is_on_record(client: PolosClient) -> None:
    handle = await double.invoke(
        client,
        Number(n=1),
        queue="q",
        concurrency_key="k",
        session_id="s",
        user_id="u",
        run_timeout_seconds=60,
    )
    record = await client.wait(handle.id)

    asked = {"queue_name": "q", "concurrency_key": "k", "session_id": "s", "user_id": "u"}
    assert {name: record[name] for name in asked} == asked
    assert record["run_timeout_seconds"] == 60
    assert record["payload"] == {"n": 1}
    assert record["project_id"] == "default"


async def test_a_record_is_the_same_whoever_reads_it(site: Site) -> None:
    async with site.client("direct") as direct, site.client("http") as remote:
        handle = await remote.invoke("client-double", {"n": 1})
        await remote.wait(handle.id)

        assert await remote.get_execution(handle.id) == await direct.get_execution(handle.id)
        assert await remote.get_result(handle.id) == await direct.get_result(handle.id)


async def test_a_key_starts_one_run_however_often_it_is_used(client: PolosClient) -> None:
    key = word()
    handles = await asyncio.gather(
        *(client.invoke("client-double", {"n": 1}, idempotency_key=key) for _ in range(5))
    )

    assert len({handle.id for handle in handles}) == 1


async def test_a_key_is_refused_with_another_input(client: PolosClient) -> None:
    key = word()
    first = await client.invoke("client-double", {"n": 1}, idempotency_key=key)

    with pytest.raises(IdempotencyError, match=f"was used for run {first.id}"):
        await client.invoke("client-double", {"n": 2}, idempotency_key=key)


async def test_a_key_used_on_one_way_is_known_on_the_other(site: Site) -> None:
    key = word()
    async with site.client("direct") as direct, site.client("http") as remote:
        first = await direct.invoke("client-double", {"n": 1}, idempotency_key=key)
        again = await remote.invoke("client-double", {"n": 1}, idempotency_key=key)

    assert (again.id, again.session_id) == (first.id, first.session_id)


async def test_a_batch_is_answered_in_order(client: PolosClient) -> None:
    items = [BatchWorkflowInput(id="client-double", payload=Number(n=n)) for n in range(5)]
    handles = await batch_invoke(client, items, session_id="s", user_id="u")

    records = [await client.wait(handle.id) for handle in handles]
    assert [record["result"]["n"] for record in records] == [0, 2, 4, 6, 8]
    assert {(record["session_id"], record["user_id"]) for record in records} == {("s", "u")}


async def test_a_batch_with_a_payload_that_does_not_fit_starts_nothing(client: PolosClient) -> None:
    with pytest.raises(ValueError, match="needs a payload"):
        await client.batch_invoke([BatchWorkflowInput(id="client-double")])
    assert await client.batch_invoke([]) == []


async def test_runs_from_plain_data_may_be_of_several_sessions(client: PolosClient) -> None:
    requests = [
        RunRequest(workflow_id="client-double", payload={"n": n}, session_id=f"session-{n}", user_id=f"u{n}")
        for n in range(3)
    ]
    handles = await client.start_runs(requests)

    records = [await client.get_execution(handle.id) for handle in handles]
    assert [record["session_id"] for record in records] == ["session-0", "session-1", "session-2"]
    assert [record["user_id"] for record in records] == ["u0", "u1", "u2"]


# -- what cannot be started


@pytest.mark.parametrize(
    "name", ["session_id", "user_id", "concurrency_key", "queue_name", "idempotency_key"]
)
@pytest.mark.parametrize(
    ("label", "error"), [("a\x00b", ValueError), ("x" * 401, ValueError), ("", ValueError), (7, TypeError)]
)
async def test_a_label_no_database_holds_is_refused(
    client: PolosClient, name: str, label: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="cannot be used"):
        await client.invoke("client-double", {"n": 1}, **{name: label})


async def test_the_longest_label_is_taken(client: PolosClient) -> None:
    handle = await client.invoke("client-double", {"n": 1}, session_id="ü" * 400)
    assert (await client.get_execution(handle.id))["session_id"] == "ü" * 400


async def test_a_payload_that_is_too_large_is_refused(client: PolosClient) -> None:
    with pytest.raises(ValueTooLargeError, match="POLOS_MAX_VALUE_BYTES"):
        await client.invoke("client-double", {"n": "x" * 2_000_000})


async def test_a_payload_that_is_no_json_is_refused(client: PolosClient) -> None:
    with pytest.raises(SerializationError):
        await client.invoke("client-double", {"n": object()})


@pytest.mark.parametrize("payload", [None, 0, "", [], {}, False, 1e300, "ä\u2028\ud800", 2**70])
async def test_any_json_arrives_as_it_was(client: PolosClient, payload: Any) -> None:
    handle = await client.invoke("client-nobody", payload)
    record = await client.get_execution(handle.id)
    await client.cancel_execution(handle.id)

    assert (record["payload"], type(record["payload"])) == (payload, type(payload))


# -- waiting


async def test_a_wait_ends_with_the_run(client: PolosClient, tmp_path: Path) -> None:
    """Soon after it, not with the next look."""
    barrier = gate(tmp_path)
    handle = await gated.invoke(client, barrier)
    waiting = asyncio.create_task(client.wait(handle.id))
    await asyncio.sleep(0.3)
    assert not waiting.done()

    await asyncio.to_thread(Path(barrier.file).touch)
    began = time.monotonic()
    record = await waiting
    assert (record["status"], record["result"]) == ("completed", "passed")
    assert time.monotonic() - began < 1.5


async def test_a_wait_ends_with_its_time(client: PolosClient, tmp_path: Path) -> None:
    handle = await gated.invoke(client, gate(tmp_path))

    with pytest.raises(WorkflowTimeoutError, match=r"did not end within 0\.2 seconds"):
        await client.wait(handle.id, timeout_seconds=0.2)
    assert await client.cancel_execution(handle.id) is True


async def test_a_run_nobody_serves_is_told_of(client: PolosClient, caplog: pytest.LogCaptureFixture) -> None:
    handle = await client.invoke("client-nobody")

    with pytest.raises(WorkflowTimeoutError):
        await client.wait(handle.id, timeout_seconds=1.3)
    await client.cancel_execution(handle.id)
    assert [message for message in caplog.messages if "No live worker serves" in message] == [
        message for message in caplog.messages if handle.id in message
    ]
    assert "'client-nobody'" in caplog.text


async def test_many_waits_at_once_all_end(client: PolosClient) -> None:
    found = await asyncio.gather(*(double.run(client, Number(n=n)) for n in range(30)))
    assert [one.n for one in found] == [2 * n for n in range(30)]


# -- reading and cancelling


@pytest.mark.parametrize("name", ["nothing", "", "..", "a/b?c=d#e", "ü" * 100, "\x00", "%00"])
async def test_a_run_that_does_not_exist_is_an_error(client: PolosClient, name: str) -> None:
    with pytest.raises(ValueError, match="There is no run"):
        await client.get_execution(name)
    with pytest.raises(ValueError, match="There is no run"):
        await client.wait(name, timeout_seconds=5)
    assert await client.cancel_execution(name) is False


async def test_runs_of_another_project_are_not_seen(site: Site, way: str) -> None:
    async with site.client(way) as ours, site.client(way, project_id="another") as theirs:
        handle = await ours.invoke("client-double", {"n": 1})
        with pytest.raises(ValueError, match="There is no run"):
            await theirs.get_execution(handle.id)
        with pytest.raises(ValueError, match="There is no run"):
            await theirs.wait(handle.id, timeout_seconds=5)
        with pytest.raises(ValueError, match="There is no run"):
            await anext(theirs.follow(handle.id))
        assert await theirs.cancel_execution(handle.id) is False


async def test_a_run_is_cancelled_once(client: PolosClient, tmp_path: Path) -> None:
    handle = await gated.invoke(client, gate(tmp_path))

    assert await handle.cancel(client) is True
    assert (await handle.get(client))["status"] == "cancelled"
    assert await handle.cancel(client) is False


# -- events


async def test_a_run_is_followed_to_its_end(client: PolosClient) -> None:
    handle = await steps.invoke(client, Number(n=3))
    events = [event async for event in client.follow(handle.id)]

    assert events[-1].event_type == "workflow_finish"
    assert events[-1].data["result"] == 3
    finished = [event for event in events if event.event_type == "step_finish"]
    assert [event.data["step_key"] for event in finished] == ["step0", "step1", "step2"]
    assert {event.topic for event in events} == {f"workflow/client-steps/{handle.id}"}


async def test_what_follows_an_event_is_exactly_the_rest(client: PolosClient) -> None:
    handle = await steps.invoke(client, Number(n=3))
    events = [event async for event in client.follow(handle.id)]

    for place, event in enumerate(events):
        rest = [later async for later in client.follow(handle.id, after=event.id)]
        told = [(each.id, each.event_type, each.data.get("step_key")) for each in events]
        assert certain(rest) == certain(events[place + 1 :]), (event.id, told)


def certain(events: list[StreamEvent]) -> list[Any]:
    """Return all but begins of steps: where nobody read live, those are rebuilt from clocks that differ."""
    return [what(event) for event in events if event.event_type != "step_start"]


def what(event: StreamEvent) -> tuple[str | None, Any]:
    """Return what an event tells; ids only say where it was read."""
    return event.event_type, event.data.get("step_key")


async def test_both_ways_see_the_same_events_after_any_of_them(site: Site) -> None:
    async with site.client("direct") as direct, site.client("http") as remote:
        handle = await steps.invoke(remote, Number(n=2))
        await remote.wait(handle.id)
        events = [event async for event in direct.follow(handle.id)]
        for after in (None, 0, *(event.id for event in events), *(event.sequence_id for event in events)):
            seen = [[event async for event in one.follow(handle.id, after=after)] for one in (direct, remote)]
            assert seen[0] == seen[1]

    assert len(events) >= 4


async def test_live_gives_the_end_of_a_run_that_has_ended(client: PolosClient) -> None:
    handle = await steps.invoke(client, Number(n=1))
    await client.wait(handle.id)

    events = [event.event_type async for event in client.follow(handle.id, live=True)]
    assert events == ["workflow_finish"]


async def test_a_cancelled_run_ends_its_stream(client: PolosClient, tmp_path: Path) -> None:
    handle = await gated.invoke(client, gate(tmp_path))
    stream = client.follow(handle.id)
    reading = asyncio.create_task(_types(stream))
    await client.cancel_execution(handle.id)

    assert (await asyncio.wait_for(reading, 20))[-1] == "workflow_cancel"


async def _types(stream: Any) -> list[str | None]:
    return [event.event_type async for event in stream]


@pytest.mark.parametrize("run", ["nothing", ""])
async def test_a_run_that_does_not_exist_cannot_be_followed(client: PolosClient, run: str) -> None:
    with pytest.raises(ValueError, match="There is no run"):
        await anext(client.follow(run))


@pytest.mark.parametrize("after", ["nonsense", "a b", "1.2.3.4.5"])
async def test_a_malformed_position_is_refused(client: PolosClient, after: str) -> None:
    handle = await client.invoke("client-double", {"n": 1})

    with pytest.raises(ValueError, match=r"."):
        await anext(client.follow(handle.id, after=after))


async def test_what_is_published_is_listed(client: PolosClient) -> None:
    topic = word()
    first = await client.publish_events(topic, [EventData(event_type="a", data={"n": 1})])
    others = await client.publish_events(
        topic, [EventData(event_type="b", data={"n": n, "text": "ä\u2028"}) for n in (2, 3)]
    )

    found = await client.list_events(topic)
    assert [event.sequence_id for event in found] == [*first, *others]
    assert [(event.event_type, event.data["n"]) for event in found] == [("a", 1), ("b", 2), ("b", 3)]
    assert {event.topic for event in found} == {topic}
    assert [event.data["n"] for event in await client.list_events(topic, after=first[0])] == [2, 3]
    assert [event.data["n"] for event in await client.list_events(topic, limit=1, descending=True)] == [3]
    assert await client.publish_events(topic, []) == []


async def test_a_topic_is_followed_from_any_place(client: PolosClient) -> None:
    topic, before = word(), datetime.now(UTC) - timedelta(seconds=10)
    [first] = await client.publish_events(topic, [EventData(data={"n": 1})])
    await client.publish_events(topic, [EventData(data={"n": 2})])

    assert [event.data["n"] for event in await some(client.follow_topic(topic, after=0), 2)] == [1, 2]
    assert [event.data["n"] for event in await some(client.follow_topic(topic, after=first), 1)] == [2]
    assert [event.data["n"] for event in await some(client.follow_topic(topic, after_time=before), 2)] == [
        1,
        2,
    ]


async def some(stream: Any, number: int) -> list[StreamEvent]:
    """Return the first events of a stream, and close it."""
    found = []
    async for event in stream:
        found.append(event)
        if len(found) == number:
            break
    await stream.aclose()
    return found


async def test_topics_of_another_project_are_not_seen(site: Site, way: str) -> None:
    topic = word()
    async with site.client(way) as ours, site.client(way, project_id="another") as theirs:
        await ours.publish_events(topic, [EventData(data={"n": 1})])
        assert await theirs.list_events(topic) == []


# -- life


def test_a_client_works_from_one_loop_after_another(site: Site, way: str) -> None:
    client = site.client(way)

    async def once(n: int) -> Number:
        result: Number = await double.run(client, Number(n=n))
        return result

    assert asyncio.run(once(1)) == Number(n=2)
    assert asyncio.run(once(2)) == Number(n=4)
    asyncio.run(client.close())


async def test_a_closed_client_connects_again(client: PolosClient) -> None:
    await client.close()
    assert await double.run(client, Number(n=1)) == Number(n=2)


async def test_a_client_of_a_server_has_no_worker(site: Site) -> None:
    async with site.client("http") as client:
        with pytest.raises(ConfigurationError, match="no worker of its own"):
            await client.start_worker()
