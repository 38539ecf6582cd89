"""Streams of agent runs as a program reads them, from a worker elsewhere."""

from __future__ import annotations

import asyncio
import json
import random
from itertools import pairwise

import pytest
from reports import REPORTS
from stream_program import pair, steps
from studio import Studio, read, text_of
from talker import words

from polos import StreamEvent, StreamResult, events
from polos.errors import RunFailedError
from polos.streaming import reader

DROPS = 1000


async def test_text_comes_as_the_model_speaks(studio: Studio) -> None:
    studio.talker.gate("live")
    stream = await studio.speaks(6, gate="live", at=3)
    heard = []
    async for piece in stream.text_chunks:
        heard.append(piece)
        if len(heard) == 3:
            studio.talker.open("live")  # were it not live, the model would wait for ever
    assert heard == words(6)
    assert await stream.text() == "".join(words(6))


async def test_events_of_an_agent_with_a_tool_come_in_order(studio: Studio) -> None:
    stream = await studio.speaks(2, tool="stream-double")
    found = await read(stream)
    assert [event.event_type for event in found] == [
        "agent_start",
        "step_start",  # what the agent remembers of its session
        "step_finish",
        "step_start",
        "stream_start",
        "tool_call",
        "step_finish",
        "tool_start",
        "tool_finish",
        "tool_result",
        "step_start",
        "stream_start",
        "text_delta",
        "text_delta",
        "step_finish",
        "agent_finish",
    ]
    by_type = {event.event_type: event for event in found}
    assert by_type["tool_call"].data["tool_call"]["function"] == {
        "name": "stream-double",
        "arguments": '{"n": 1}',
    }
    assert by_type["tool_result"].data["result"] == {"doubled": 2}
    assert by_type["agent_start"].data["payload"]["streaming"] is True
    assert by_type["agent_finish"].data["result"]["result"] == "".join(words(2))
    assert {event.topic for event in found} == {f"workflow/stream-speaker/{stream.id}"}
    sequence = [event.sequence_id for event in found]
    assert sequence == sorted(set(sequence))
    result = await stream.result()
    assert result.tool_results[0].tool_name == "stream-double"
    assert result.usage.total_tokens == 4


async def test_every_use_of_a_property_reads_from_the_start(studio: Studio) -> None:
    stream = await studio.speaks(4)
    readings = [*await asyncio.gather(read(stream), read(stream)), await read(stream)]
    # Ids tell where an event was read: the start may come from the journal before Redis has it.
    told = [[(event.event_type, event.data) for event in reading] for reading in readings]
    assert told[0] == told[1] == told[2]
    elsewhere = StreamResult(stream.handle, studio.client)
    assert await elsewhere.text() == "".join(words(4))


async def test_a_failed_run_raises_behind_the_event_that_says_so(studio: Studio) -> None:
    stream = await studio.speaks(3, refuse=99)
    seen = []

    async def reads() -> None:
        async for event in stream.events:
            seen.append(event)

    with pytest.raises(RunFailedError, match="overloaded"):
        await reads()
    assert seen[-1].event_type == "agent_finish"
    assert "overloaded" in seen[-1].data["error"]
    for reading in (stream.text(), stream.result()):
        with pytest.raises(RunFailedError, match="overloaded"):
            await reading


async def test_a_cancelled_run_ends_its_streams(studio: Studio) -> None:
    studio.talker.gate("cancelled")
    stream = await studio.speaks(5, gate="cancelled", at=2)
    seen = []

    async def reads() -> None:
        async for event in stream.events:
            seen.append(event.event_type)
            if seen.count("text_delta") == 2:
                await stream.handle.cancel(studio.client)

    with pytest.raises(RunFailedError, match="cancelled"):
        await reads()
    assert seen[-1] == "agent_cancel"
    studio.talker.open("cancelled")


async def test_a_stream_cut_by_the_provider_starts_again_and_says_so(studio: Studio) -> None:
    stream = await studio.speaks(6, cut=3)
    found = await read(stream)
    kinds = [event.event_type for event in found]
    reset = kinds.index("stream_reset")
    assert kinds[:reset].count("text_delta") == 3
    assert kinds[reset + 1] == "stream_start"
    assert text_of(found[reset:]) == "".join(words(6))
    assert await stream.text() == "".join(words(6))
    assert [piece async for piece in stream.text_chunks] == words(6), "no word twice"


async def test_of_another_answer_only_what_is_new_is_given(studio: Studio) -> None:
    stream = await studio.speaks(4, cut=2, varies=True)
    pieces = [piece async for piece in stream.text_chunks]
    assert pieces[:2] == words(2)
    assert await stream.text() == "".join(words(4, "'"))
    assert len(pieces) == 6, "both attempts differ from their first word on"


async def test_two_agents_that_speak_at_once_are_kept_apart(studio: Studio) -> None:
    texts = [json.dumps({"words": 20, "pace": 0.002, "mark": mark}) for mark in ("a", "b")]
    handle = await pair.invoke(studio.client, {"texts": texts})
    spoken: dict[str, str] = {}
    cursor: str | None = None
    chance = random.Random(1)
    while cursor != "end":  # and a reader that drops often mixes nothing up either
        async for event in studio.client.follow(handle.id, after=cursor):
            cursor = event.id
            if event.event_type == "text_delta":
                run = event.data["_metadata"]["execution_id"]
                spoken[run] = spoken.get(run, "") + event.data["content"]
            if event.event_type == "workflow_finish":
                cursor = "end"
            elif chance.random() < 0.1:
                break
    assert sorted(spoken.values()) == ["".join(words(20, "a")), "".join(words(20, "b"))]


async def test_a_thousand_drops_lose_and_repeat_nothing(
    studio: Studio, request: pytest.FixtureRequest
) -> None:
    """F26: a reader drops at random pieces and follows on after the last it has."""
    chance = random.Random(26)
    drops = deltas = runs = late = 0
    while drops < DROPS:
        stream = await studio.speaks(120, pace=0.002)
        runs += 1
        cursor: str | None = None
        found: list[StreamEvent] = []
        while not found or found[-1].event_type != "agent_finish":
            left = chance.randint(0, 4)
            async for event in studio.client.follow(stream.id, after=cursor):
                found.append(event)
                cursor = event.id
                left -= 1
                if left < 0 and event.event_type != "agent_finish":
                    drops += 1
                    break
        deltas += sum(event.event_type == "text_delta" for event in found)
        assert text_of(found) == "".join(words(120))
        sequence = [event.sequence_id for event in found]
        assert all(before < after for before, after in pairwise(sequence))
        assert text_of(await read(stream)) == text_of(found)
        late += 1
    line = f"{drops} drops, {runs} runs, {deltas} pieces of text, {late} late readers: none lost, none twice"
    request.config.stash[REPORTS]["F26: readers that drop"] = [line]


async def test_a_reader_in_the_middle_of_a_text_survives_the_loss_of_redis(studio: Studio) -> None:
    studio.talker.gate("flush")
    stream = await studio.speaks(30, gate="flush", at=15)
    heard = []
    async for piece in stream.text_chunks:
        heard.append(piece)
        if len(heard) == 15:
            with studio.redis() as server:
                server.flushall()
                server.client_kill_filter(_type="pubsub")
            studio.talker.open("flush")
    assert "".join(heard) == "".join(words(30))


async def test_a_reader_that_reconnects_after_the_loss_of_redis_misses_nothing(studio: Studio) -> None:
    studio.talker.gate("lost")
    stream = await studio.speaks(30, gate="lost", at=15)
    found: list[StreamEvent] = []
    async for event in studio.client.follow(stream.id):
        found.append(event)
        if text_of(found) == "".join(words(15)):
            break
    with studio.redis() as server:
        server.flushall()
    studio.talker.open("lost")
    found += [event async for event in studio.client.follow(stream.id, after=found[-1].id)]
    assert text_of(found) == "".join(words(30))
    assert [event.event_type for event in found].count("stream_start") == 1


async def test_many_readers_share_one_connection_and_all_get_everything(studio: Studio) -> None:
    """F27: five hundred readers of one run in one process."""
    studio.talker.gate("many")
    stream = await studio.speaks(20, gate="many", at=10)
    with studio.redis() as server:
        await stream.get()
        before = len(server.client_list(_type="pubsub"))
        reading = [asyncio.ensure_future(stream.text()) for _ in range(500)]
        while server.pubsub_numsub(f"polos:tree:{stream.id}")[0][1] < 1:
            await asyncio.sleep(0.01)
        assert len(server.client_list(_type="pubsub")) <= before + 1
    studio.talker.open("many")
    assert set(await asyncio.gather(*reading)) == {"".join(words(20))}


async def test_a_reader_that_does_not_read_keeps_little_and_loses_nothing(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F27: what a slow reader has not read waits in Redis, not in its process."""
    monkeypatch.setattr(reader, "MAX_WAITING_ENTRIES", 20)
    stream = await studio.speaks(500)
    slow = studio.client.follow(stream.id)
    found = [await anext(slow)]
    assert await stream.text() == "".join(words(500)), "the run has ended, and others were not held up"
    found += [event async for event in slow]
    assert text_of(found) == "".join(words(500))
    assert [event.event_type for event in found].count("stream_reset") == 0


async def test_from_now_on_gives_what_comes_not_what_was(studio: Studio) -> None:
    studio.talker.gate("now")
    stream = await studio.speaks(6, gate="now", at=3)
    await asyncio.to_thread(studio.talker.reached["now"].wait, 30)
    async for event in studio.client.follow(stream.id):
        if event.event_type == "text_delta" and event.data["chunk_index"] == 2:
            break
    following = events.stream_workflow(studio.client, "stream-speaker", stream.id)
    first = asyncio.ensure_future(anext(following))
    while not first.done():  # until it listens
        await events.publish(studio.client, stream.topic, events.EventData(event_type="ping", data={}))
        await asyncio.wait({first}, timeout=0.05)
    assert first.result().event_type == "ping"
    studio.talker.open("now")
    found = [event async for event in following]
    assert text_of(found) == "".join(words(6)[3:])
    assert found[-1].event_type == "agent_finish"


async def test_from_now_on_of_an_ended_run_gives_its_end(studio: Studio) -> None:
    stream = await studio.speaks(2)
    await stream.result()
    found = [event async for event in events.stream_workflow(studio.client, "stream-speaker", stream.id)]
    assert [event.event_type for event in found] == ["agent_finish"]


async def test_after_the_end_of_a_run_nothing_comes(studio: Studio) -> None:
    stream = await studio.speaks(2)
    last = (await read(stream))[-1]
    assert [event async for event in studio.client.follow(stream.id, after=last.id)] == []
    assert [event async for event in studio.client.follow(stream.id, after=last.sequence_id)] == []


async def test_a_sequence_id_is_a_place_to_go_on_from(studio: Studio) -> None:
    stream = await studio.speaks(8)
    found = await read(stream)
    whole = [
        event
        async for event in events.stream_workflow(
            studio.client, "stream-speaker", stream.id, last_sequence_id=0
        )
    ]
    assert [event.id for event in whole] == [event.id for event in found]
    middle = found[6]
    rest = [
        event
        async for event in events.stream_workflow(
            studio.client, "stream-speaker", stream.id, last_sequence_id=middle.sequence_id
        )
    ]
    assert [event.event_type for event in rest] == [event.event_type for event in found[7:]]
    assert text_of(rest) == text_of(found[7:])


async def test_steps_of_a_workflow_are_told_to_who_reads_it(studio: Studio) -> None:
    handle = await steps.invoke(studio.client, {"steps": 3, "pause": 0.05})
    found = [event async for event in studio.client.follow(handle.id)]
    told = [(event.event_type, event.data.get("step_key")) for event in found]
    assert told[0] == ("workflow_start", None)
    assert told[-1] == ("workflow_finish", None)
    for number in range(3):
        assert told.count(("step_start", f"step {number}")) == 1
        assert told.count(("step_finish", f"step {number}")) == 1


async def test_an_unread_workflow_leaves_nothing_in_redis(studio: Studio) -> None:
    assert await steps.run(studio.client, {"steps": 3}) == "done"
    with studio.redis() as server:
        kept = {key for key in server.scan_iter("polos:tree:*") if server.type(key) == "stream"}
        handle = await steps.invoke(studio.client, {"steps": 1})
        await studio.client.wait(handle.id)
        assert f"polos:tree:{handle.id}" not in set(server.scan_iter("polos:tree:*"))
        assert all(0 < server.ttl(key) <= 3600 for key in kept)


async def test_bad_cursors_and_unknown_runs_are_refused(studio: Studio) -> None:
    stream = await studio.speaks(1)
    for cursor in ("", "x", "1", "1.2", "1.2-3.", "-1.2-3", "1.2-3.a.b.c.d", "٣.٣-٣"):
        with pytest.raises(ValueError, match="not the id of an event"):
            await anext(studio.client.follow(stream.id, after=cursor))
    with pytest.raises(ValueError, match="no run"):
        await anext(studio.client.follow("5a0f6f6e-0000-0000-0000-000000000000"))
    await stream.result()
