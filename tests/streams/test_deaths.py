"""Streams whose worker or broker dies in the middle of a text."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from reports import REPORTS
from studio import Studio, text_of
from talker import words

from polos import StreamEvent


@pytest.fixture(scope="module")
def worker_is_shared() -> bool:
    return False


async def test_the_death_of_a_worker_costs_readers_neither_words_nor_order(
    studio: Studio, request: pytest.FixtureRequest
) -> None:
    studio.talker.gate("death")
    doomed = studio.worker()
    stream = await studio.speaks(40, gate="death", at=20)
    told: list[StreamEvent] = []
    printed: list[str] = []

    async def read_events() -> None:
        async for event in stream.events:
            told.append(event)

    async def read_text() -> None:
        async for piece in stream.text_chunks:
            printed.append(piece)

    readers = asyncio.gather(read_events(), read_text())
    while len(printed) < 20:
        await asyncio.sleep(0.01)
    doomed.kill()
    studio.talker.open("death")
    await asyncio.to_thread(studio.worker)
    await readers
    assert printed == words(40), "no word twice, none missing"
    kinds = [event.event_type for event in told]
    reset = kinds.index("stream_reset")
    assert text_of(told[:reset]) == "".join(words(20))
    assert kinds[reset + 1] == "stream_start"
    assert text_of(told[reset:]) == "".join(words(40))
    assert Counter(kinds)["agent_finish"] == 1
    again = [event async for event in studio.client.follow(stream.id, after=told[reset - 1].id)]
    assert [event.id for event in again] == [event.id for event in told[reset:]], "as for who stayed"
    lines = [f"{kind}" for kind in kinds if kind not in {"text_delta"}]
    request.config.stash[REPORTS]["a stream whose worker was killed after 20 of 40 words"] = [" ".join(lines)]


async def test_a_stream_ends_whole_though_redis_died(studio: Studio) -> None:
    studio.talker.gate("redis")
    studio.worker()
    stream = await studio.speaks(40, gate="redis", at=20)
    printed: list[str] = []
    async for piece in stream.text_chunks:
        printed.append(piece)
        if len(printed) == 20:
            with studio.redis() as server:
                server.execute_command("CLIENT", "PAUSE", "1500", "ALL")
            studio.talker.open("redis")
    assert "".join(printed) == "".join(words(40))
