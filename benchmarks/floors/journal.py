"""A journal on the raw drivers: create, claim, step and finish, each in a transaction of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from typing import Any, Protocol

import psycopg
from sqlalchemy import make_url

Command = tuple[str, tuple[Any, ...]]

TABLES = (
    "CREATE TABLE IF NOT EXISTS run (id text PRIMARY KEY, status text NOT NULL, attempt integer NOT NULL,"
    " seq integer NOT NULL, owner text, output text)",
    "CREATE TABLE IF NOT EXISTS step (run_id text, name text, seq integer NOT NULL, output text,"
    " PRIMARY KEY (run_id, name))",
)
CREATE = "INSERT INTO run (id, status, attempt, seq) VALUES (?, 'queued', 0, 0)"
CLAIM = (
    "UPDATE run SET status = 'running', attempt = attempt + 1, owner = ?"
    " WHERE id = ? AND status = 'queued' RETURNING attempt"
)
FENCE = "UPDATE run SET seq = seq + 1 WHERE id = ? AND attempt = 1 AND status = 'running' RETURNING seq"
STEP = (
    "INSERT INTO step (run_id, name, seq, output) SELECT id, ?, seq, ? FROM run WHERE id = ? AND attempt = 1"
)
FENCED_STEP = (  # the same in one statement, where the database has data-modifying CTEs
    f"WITH held AS ({FENCE}) INSERT INTO step (run_id, name, seq, output) SELECT ?, ?, seq, ? FROM held"
)
FINISH = "UPDATE run SET status = 'completed', output = ? WHERE id = ? AND attempt = 1"


def create(run: str) -> list[Command]:
    """Return what creates a queued run."""
    return [(CREATE, (run,))]


def claim(run: str) -> list[Command]:
    """Return what claims a run."""
    return [(CLAIM, ("worker", run))]


def finish(run: str, output: str) -> list[Command]:
    """Return what ends a run."""
    return [(FINISH, (output, run))]


class Journal(Protocol):
    """A connection; one transaction per `commit`."""

    def commit(self, *batches: Sequence[Command]) -> None:
        """Run all commands as one transaction."""

    def step(self, run: str, name: str, output: str) -> list[Command]:
        """Return what records a step under the run's fence."""

    def output_of(self, run: str) -> str | None:
        """Return the output of a run that has ended."""

    def close(self) -> None:
        """Close the connection."""


class SqliteJournal:
    """WAL and synchronous=NORMAL, as polos has by default."""

    def __init__(self, path: str) -> None:
        self._driver = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        for text in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", *TABLES):
            self._driver.execute(text)

    def commit(self, *batches: Sequence[Command]) -> None:
        self._driver.execute("BEGIN IMMEDIATE")
        for commands in batches:
            for text, params in commands:
                self._driver.execute(text, params).fetchall()
        self._driver.execute("COMMIT")

    async def commit_soon(self, commands: Sequence[Command]) -> None:
        self.commit(commands)

    def step(self, run: str, name: str, output: str) -> list[Command]:
        return [(FENCE, (run,)), (STEP, (name, output, run))]

    def output_of(self, run: str) -> str | None:
        row = self._driver.execute("SELECT output FROM run WHERE id = ?", (run,)).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        self._driver.close()


class PostgresJournal:
    """A lone command commits by itself; several are one pipeline, hence one round trip."""

    def __init__(self, url: str) -> None:
        self._driver = psycopg.connect(url, autocommit=True)
        with suppress(psycopg.errors.UniqueViolation):  # two create the tables at once: one wins
            for text in TABLES:
                self._driver.execute(text)

    def commit(self, *batches: Sequence[Command]) -> None:
        commands = [command for batch in batches for command in batch]
        if len(commands) == 1:
            self._driver.execute(_in_postgres(commands[0][0]), commands[0][1])
            return
        with self._driver.pipeline(), self._driver.transaction():
            for text, params in commands:
                self._driver.execute(_in_postgres(text), params)

    async def commit_soon(self, commands: Sequence[Command]) -> None:
        self.commit(commands)

    def step(self, run: str, name: str, output: str) -> list[Command]:
        return [(FENCED_STEP, (run, run, name, output))]

    def output_of(self, run: str) -> str | None:
        row = self._driver.execute("SELECT output FROM run WHERE id = %s", (run,)).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        self._driver.close()


def open_journal(url: str) -> Journal:
    """Return a connection to the floor's database, its tables created."""
    if url.startswith("sqlite"):
        return SqliteJournal(make_url(url).database or "")
    return PostgresJournal(url)


class GroupWriter:
    """Group commit at its thinnest: what arrives while a commit is under way is the next batch."""

    def __init__(self, commit: Callable[[list[Command]], Awaitable[None]]) -> None:
        self._commit = commit
        self._waiting: list[tuple[Sequence[Command], asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def do(self, commands: Sequence[Command]) -> None:
        """Return when `commands` are committed."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((commands, done))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        await done

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await self._commit([command for commands, _ in batch for command in commands])
            for _, done in batch:
                done.set_result(None)


@asynccontextmanager
async def group_writer(url: str) -> AsyncIterator[tuple[GroupWriter, Journal]]:
    """Open a writer, for SQLite on the loop itself, and a journal that makes its commands."""
    with closing(open_journal(url)) as journal:
        if isinstance(journal, SqliteJournal):
            yield GroupWriter(journal.commit_soon), journal
            return
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as driver:

            async def commit(commands: list[Command]) -> None:
                if len(commands) == 1:
                    await driver.execute(_in_postgres(commands[0][0]), commands[0][1])
                    return
                async with driver.pipeline(), driver.transaction():
                    for text, params in commands:
                        await driver.execute(_in_postgres(text), params)

            yield GroupWriter(commit), journal


def _in_postgres(text: str) -> str:
    return text.replace("?", "%s")
