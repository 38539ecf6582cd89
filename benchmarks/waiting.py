"""Looks into a database, on a connection that nobody counts, until enough runs have ended."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from sqlalchemy import make_url

LOOK_AGAIN_SECONDS = 0.02
PATIENCE_SECONDS = 300.0
COMPLETED = "SELECT count(*) FROM run WHERE status = 'completed'"


@contextmanager
def connection(url: str) -> Iterator[Any]:
    """Open a connection of the driver, in autocommit."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(make_url(url).database or "", isolation_level=None)) as lite:
            yield lite
    else:
        with psycopg.connect(url, autocommit=True) as server:
            yield server


def completed(url: str) -> int:
    """Return how many runs have completed in a journal, ours or the floor's."""
    with connection(url) as driver:
        [number] = driver.execute(COMPLETED).fetchone()
    return int(number)


async def until_completed(url: str, wanted: int) -> None:
    """Return when `wanted` runs have completed.

    Raises:
        TimeoutError: They have not for a long time.
    """
    await until(url, COMPLETED, wanted)


async def until(url: str, query: str, wanted: int) -> None:
    """Return when a query that counts has counted `wanted`.

    Raises:
        TimeoutError: It has not for a long time.
    """
    with connection(url) as driver:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while driver.execute(query).fetchone()[0] < wanted:  # noqa: ASYNC110 - other processes do it
                await asyncio.sleep(LOOK_AGAIN_SECONDS)


def journal_bytes(url: str) -> int:
    """Return how much room the rows of a journal take, indexes included; free pages of SQLite are not."""
    size = (
        "SELECT (page_count - freelist_count) * page_size"
        " FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()"
    )
    if not url.startswith("sqlite"):
        size = "SELECT pg_database_size(current_database())"
    with connection(url) as driver:
        [found] = driver.execute(size).fetchone()
    return int(found)
