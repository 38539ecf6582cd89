"""Streams from workers on Celery's own pools."""

from __future__ import annotations

import pytest
from studio import Studio
from talker import words


@pytest.fixture(scope="module")
def worker_is_shared() -> bool:
    return False


@pytest.mark.parametrize("pool", ["prefork", "threads"])
async def test_text_comes_live_from_every_pool(studio: Studio, pool: str) -> None:
    gate = f"pool {pool}"
    studio.talker.gate(gate)
    worker = studio.worker("-P", pool, "-c", "2", POLOS_PRELOAD_MODELS="0")
    stream = await studio.speaks(6, gate=gate, at=3, tool="stream-double")
    heard = []
    async for piece in stream.text_chunks:
        heard.append(piece)
        if len(heard) == 3:
            studio.talker.open(gate)  # were it not live, the model would wait for ever
    assert heard == words(6)
    kinds = [event.event_type async for event in stream.events]
    assert kinds[0] == "agent_start"
    assert kinds[-1] == "agent_finish"
    assert {"tool_start", "tool_call", "tool_finish", "tool_result"} <= set(kinds)
    worker.interrupt()
    worker.ends(code=None)
