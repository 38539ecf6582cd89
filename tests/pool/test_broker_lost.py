"""What a pool has taken and not begun when its broker connection goes away."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from celery import Celery

from polos.worker.pool import AsyncioPool

SLOTS = 2


class OfThisProcess(AsyncioPool):
    """A pool beside other things."""

    owns_process = False


@pytest.fixture
def pool() -> Iterator[AsyncioPool]:
    pool = OfThisProcess(SLOTS, app=Celery("lost", set_as_current=False))
    pool.start()
    yield pool
    pool.terminate()


def test_what_is_dropped_before_its_first_step_is_forgotten(pool: AsyncioPool) -> None:
    """The loop was busy when the message came and still is when its connection goes: no slot is lost."""
    is_free = threading.Event()
    pool.loop.call_soon_threadsafe(is_free.wait)
    pool.apply_async(print, ("never",))
    assert pool.room == SLOTS - 1
    pool.flush()
    is_free.set()
    _has_come_so_far(pool)
    assert pool.in_flight == 0
    assert pool.room == SLOTS


def _has_come_so_far(pool: AsyncioPool) -> None:
    """Return once the loop has done what it was given, and has told of it."""

    async def nothing() -> None:
        pass

    for _ in range(3):  # a task that is cancelled ends a turn later, and its callbacks come in another
        pool.run_coroutine(nothing())
    told = threading.Event()
    pool.post(told.set)
    while not told.is_set():
        pool._mailbox.drain(timeout_seconds=1.0)
