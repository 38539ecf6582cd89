"""What workers do every second reads few rows, however many there are: SQLite would hold all others up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from counter import Counter
from services import sqlite_url

from polos.journal.database import Database
from polos.journal.progress import read_progress
from polos.journal.turns import READ_OWNED_TURNS

EVERY = 10  # instructions of SQLite's machine
MANY = 1000
ENDED_STEPS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :many)"
    " INSERT INTO step"
    " (run_id, name, kind, status, position, attempt, tries, crashes, rings, seq, finished_at)"
    " SELECT 'run-1', 'step ' || i, 'run', 'completed', i, 1, 1, 0, 0, i, 1.0 FROM n"
)


@pytest.fixture
def long(tmp_path: Path) -> Iterator[Counter]:
    counter = Counter(Database(sqlite_url(tmp_path)))
    yield counter
    counter.close()


def instructions(counter: Counter, work: Callable[[], object]) -> int:
    """Return how much work SQLite had with it, on all connections."""
    done = 0

    def count() -> int:
        nonlocal done
        done += EVERY
        return 0

    drivers = [connection._driver for connection in counter._connections]  # type: ignore[union-attr]
    for driver in drivers:
        driver.set_progress_handler(count, EVERY)
    try:
        work()
    finally:
        for driver in drivers:
            driver.set_progress_handler(None, EVERY)
    return done


@pytest.mark.parametrize("limit", [None, 1])
def test_a_look_at_a_long_backlog_costs_no_more_than_one_at_a_short_one(
    long: Counter, limit: int | None
) -> None:
    if limit:
        long.limit("flow", limit)
    long.start_many(2 * long.window, concurrency_key="ann")
    long.start_many(2, concurrency_key="bob")
    long.look()
    short = instructions(long, long.look)
    long.start_many(MANY, concurrency_key="ann")
    assert instructions(long, long.look) < 2 * short + MANY


def test_an_audit_and_the_question_whether_anybody_works_read_no_ended_steps(long: Counter) -> None:
    def asks() -> None:
        long.read(READ_OWNED_TURNS, worker="w")
        read_progress(long.journal, patience_seconds=60.0, rings=3, silence_limit_seconds=60.0)

    asks()
    short = instructions(long, asks)
    long.journal._driver.execute(ENDED_STEPS, {"many": 10 * MANY})  # type: ignore[union-attr]
    assert instructions(long, asks) < 2 * short + MANY
