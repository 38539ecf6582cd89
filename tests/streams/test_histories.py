"""What readers get from the journal, on both databases."""

from __future__ import annotations

import pytest
from stream_program import reports
from studio import Studio, read, text_of

from polos import events

pytestmark = pytest.mark.parametrize("journal_url", ["sqlite", "postgresql"], indirect=True, scope="module")


async def test_what_redis_has_lost_comes_from_the_journal(studio: Studio) -> None:
    stream = await studio.speaks(5, tool="stream-double")
    live = await read(stream)
    with studio.redis() as server:
        server.flushall()
    late = await read(stream)
    assert text_of(late) == text_of(live)
    kinds = [event.event_type for event in late]
    assert kinds[0] == "agent_start"
    assert kinds[-1] == "agent_finish"
    assert kinds.count("stream_start") == 2
    assert kinds.count("tool_call") == 1
    numbered = ("agent_start", "step_finish", "tool_finish", "agent_finish")
    assert [kind for kind in kinds if kind in numbered] == [
        event.event_type for event in live if event.event_type in numbered
    ]


async def test_topics_are_read_in_order_by_late_and_live_readers(studio: Studio) -> None:
    client, topic = studio.client, "orders/created"
    first = await events.publish(client, topic, events.EventData(event_type="new", data={"n": 0}))
    following = events.stream_topic(client, topic, last_sequence_id=0)
    assert (await anext(following)).data == {"n": 0}
    more = await events.batch_publish(client, topic, [events.EventData(data={"n": n}) for n in (1, 2, 3)])
    assert more == [first + 1, first + 2, first + 3]
    assert [(await anext(following)).data["n"] for _ in range(3)] == [1, 2, 3]
    assert await events.batch_publish(client, topic, []) == []
    assert [event.sequence_id for event in await client.list_events(topic, after=first)] == more
    for bad in ("", "x" * 401, "a\x00b"):
        with pytest.raises(ValueError, match="topic"):
            await events.publish(client, bad, events.EventData(data={}))


async def test_what_is_published_to_a_run_reaches_its_readers(studio: Studio) -> None:
    studio.talker.gate("own")
    stream = await studio.speaks(3, gate="own", at=1)
    seen = []
    async for event in stream.events:
        seen.append(event.event_type)
        if event.event_type == "text_delta" and seen.count("text_delta") == 1:
            await events.publish(
                studio.client, stream.topic, events.EventData(event_type="note", data={"by": "me"})
            )
        if event.event_type == "note":
            assert event.data == {"by": "me"}
            studio.talker.open("own")
    assert seen.count("note") == 1
    assert [event.event_type for event in await read(stream)].count("note") == 1


async def test_what_is_recorded_of_a_run_can_be_listed(studio: Studio) -> None:
    stream = await studio.speaks(4, tool="stream-double")
    found = await read(stream)
    listed = await studio.client.list_events(stream.topic)
    assert listed[0].event_type == "agent_start"
    assert listed[-1].event_type == "agent_finish"
    assert listed[-1].data == found[-1].data
    newest = await studio.client.list_events(stream.topic, limit=2, descending=True)
    assert newest == listed[:-3:-1]
    assert (
        await studio.client.list_events("workflow/stream-speaker/5a0f6f6e-0000-0000-0000-000000000000") == []
    )


async def test_numbered_events_of_a_tree_have_no_holes(studio: Studio) -> None:
    stream = await studio.speaks(2, tool="stream-double")
    await stream.result()
    with studio.redis() as server:
        server.flushall()
    numbers = [int(event.id.partition(".")[0]) for event in await read(stream)]
    assert sorted(set(numbers)) == [1, 2, 3, 4, 5, 6], "start, memory, two turns, a tool, the end"


async def test_what_a_run_publishes_is_published_once_however_often_it_is_replayed(studio: Studio) -> None:
    handle = await reports.invoke(studio.client, {"parts": 3, "topic": "parts"})
    found = [event async for event in studio.client.follow(handle.id)]
    told = [event.data["part"] for event in found if event.event_type == "progress"]
    assert told == [0, 1, 2]
    assert (await handle.get(studio.client))["result"] == "reported"
    assert [event.data["part"] for event in await studio.client.list_events("parts")] == [0, 1, 2]
    numbers = [int(event.id.partition(".")[0]) for event in found if event.event_type == "progress"]
    assert numbers == [2, 3, 4], "after the start, without holes"
