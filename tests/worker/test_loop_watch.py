from __future__ import annotations

import asyncio
import logging
import time

import pytest

from polos.worker.loop_watch import LoopWatch


def wait_in_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    deadline = time.monotonic() + 10
    while "has been blocked" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.01)


async def test_code_that_blocks_the_loop_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = LoopWatch(asyncio.get_running_loop(), limit_seconds=0.1)
    watch.start()
    while not watch._loop_thread:  # it has been asked, and answered
        await asyncio.sleep(0.01)
    wait_in_the_loop(caplog)
    while "goes on after" not in caplog.text:
        await asyncio.sleep(0.01)
    watch.stop()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    blocked = [text for text in warnings if "has been blocked" in text]
    assert "wait_in_the_loop" in blocked[0]
    assert "asyncio.to_thread" in blocked[0]


async def test_a_process_that_was_stopped_blames_nobody(caplog: pytest.LogCaptureFixture) -> None:
    watch = LoopWatch(asyncio.get_running_loop(), limit_seconds=5.0)
    for now in (1.0, 2.0, 3.0, 500.0, 501.0, 504.9):
        watch.look(now)
    assert not caplog.records
    watch.look(505.0)
    assert "has been blocked for 5.0 s" in caplog.text


async def test_a_limit_of_zero_watches_nothing() -> None:
    watch = LoopWatch(asyncio.get_running_loop(), limit_seconds=0.0)
    watch.start()
    assert watch._thread is None
    watch.stop()
