"""The group-commit writer: all journal writes of a process, one batch at a time, each caller answered alone.

What arrives while a commit is under way forms the next batch. Callers are answered after the commit only, and
cancelling a caller never removes a unit already sent. See ARCHITECTURE.md, "Group commit".
"""

from __future__ import annotations

import asyncio
import logging
import queue
import random
import threading
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from polos.errors import JournalUnavailableError
from polos.faultpoints import faultpoint
from polos.journal.database import Database
from polos.journal.postgres import (
    AsyncPostgresConnection,
    ServerRestartedError,
    TransientConflictError,
)
from polos.journal.sqlite import SqliteConnection
from polos.journal.statements import Answer, Params, Rows, Statement, Unit
from polos.journal.workers import READ_CLOCK

logger = logging.getLogger("polos.journal")

MAX_BATCH_UNITS = 500  # nothing is gained above
MAX_WAITING_UNITS = 20_000  # more wait at the door: back-pressure while the database is away
MAX_INLINE_UNITS = 8  # SQLite: a batch this small is committed on the loop itself, if its turn comes at once
CLOSE_LOOKS_SECONDS = 0.005  # between looks whether everything is committed
RECONNECT_SECONDS = (0.05, 2.0)  # first and longest pause between attempts to reach the database
FindLost = Callable[[], Awaitable[AbstractSet[str]]]  # ids of runs, after a restart of the database


async def _nothing() -> AbstractSet[str]:
    return frozenset()


class Backend(Protocol):
    """How batches reach one kind of database from an event loop."""

    async def commit(self, units: Sequence[Unit]) -> list[Answer]:
        """Run `units` as one transaction."""

    async def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""

    async def close(self) -> None:
        """Give up connections and threads."""


class PostgresBackend:
    """Pipelines on the loop's own thread: a thread of its own starves beside a busy loop."""

    def __init__(self, database: Database) -> None:
        self._writes = AsyncPostgresConnection(database.conninfo, database.dialect, database.codec)
        self._reads = AsyncPostgresConnection(database.conninfo, database.dialect, database.codec)
        self._reading = asyncio.Lock()

    async def commit(self, units: Sequence[Unit]) -> list[Answer]:
        """Run `units` as one transaction."""
        return await self._writes.commit(units)

    async def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""
        async with self._reading:
            return await self._reads.read(statement, params)

    async def close(self) -> None:
        """Close both connections."""
        await self._writes.close()
        await self._reads.close()


class SqliteBackend:
    """Small batches on the loop itself (a thread hop costs more than the commit), others in one thread."""

    def __init__(self, database: Database) -> None:
        self._writes = database.open_sqlite()
        self._reads = database.open_sqlite()
        self._thread = _CommitThread(self._writes)

    async def commit(self, units: Sequence[Unit]) -> list[Answer]:
        """Run `units` as one transaction."""
        if len(units) <= MAX_INLINE_UNITS and self._writes.take_turn(blocking=False):
            try:
                return self._writes.commit_in_turn(units)
            finally:
                self._writes.end_turn()
        return await self._thread.commit(units)

    async def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""
        return self._reads.read(statement, params)

    async def close(self) -> None:
        """Close both connections and end the thread."""
        self._thread.stop()
        self._writes.close()
        self._reads.close()


class _CommitThread:
    """A daemon thread of our own: the loop's executor may be full of user functions."""

    def __init__(self, connection: SqliteConnection) -> None:
        self._connection = connection
        self._work: queue.SimpleQueue[tuple[Sequence[Unit], asyncio.Future[list[Answer]]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._run, name="polos-journal", daemon=True)
        self._thread.start()

    async def commit(self, units: Sequence[Unit]) -> list[Answer]:
        done: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._work.put((units, done))
        return await done

    def stop(self) -> None:
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            units, done = work
            try:
                answers = self._connection.commit_each(units)
            except Exception as error:  # noqa: BLE001 - handed to the caller
                self._settle(done, error)
            else:
                self._settle(done, answers)

    @staticmethod
    def _settle(done: asyncio.Future[list[Answer]], result: list[Answer] | Exception) -> None:
        def settle() -> None:
            if done.done():
                return
            if isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)

        done.get_loop().call_soon_threadsafe(settle)


class Writer:
    """Commits units in batches until it is certain of each one's outcome."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._waiting: list[tuple[Unit, asyncio.Future[Rows]]] = []
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="polos-writer")
        self._committing = False
        self._restarted = False
        self.restarts = 0  # of the server, as far as we noticed; one may be counted twice
        self.find_lost: FindLost = _nothing
        self.batches = 0  # commits so far, for benchmarks
        self.units = 0

    async def do(self, unit: Unit) -> Rows:
        """Commit `unit` with whatever else is waiting; return its answer, empty when it was refused.

        Waits as long as the database is away. Cancelling the caller does not take the unit back.

        Raises:
            sqlalchemy or driver error: The content of the unit cannot be stored.
        """
        while len(self._waiting) >= MAX_WAITING_UNITS:
            self._room.clear()
            await self._room.wait()
        answer: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        self._waiting.append((unit, answer))
        self._idle.clear()
        self._arrived.set()
        return await asyncio.shield(answer)

    @property
    def is_idle(self) -> bool:
        """Whether everything is committed."""
        return self._idle.is_set()

    async def close(self) -> None:
        """Commit what is waiting, then stop."""
        await self._idle.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def server_restarted(self) -> None:
        """Look soon whether the database has lost what it had answered; nothing is written before."""
        self.restarts += 1
        self._restarted = True
        self._arrived.set()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if self._restarted:
                await self._lost_runs()
            self._committing = True
            batch = self._next_batch()
            answers = await self._answers([unit for unit, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                _answer(future, answer)
            if not self._waiting:
                self._idle.set()

    def _next_batch(self) -> list[tuple[Unit, asyncio.Future[Rows]]]:
        batch, self._waiting = self._waiting[:MAX_BATCH_UNITS], self._waiting[MAX_BATCH_UNITS:]
        self._room.set()
        if not self._waiting:
            self._arrived.clear()
        batch.sort(key=lambda entry: entry[0].order)
        return batch

    async def _answers(self, units: Sequence[Unit]) -> list[Answer]:
        try:
            return await self._certain(units) if units else []
        except Exception as error:  # noqa: BLE001 - each caller gets its own
            if len(units) == 1:
                return [error]
            logger.warning(
                "A batch of %d was refused for its content (%r); running its units alone", len(units), error
            )
            return [answer for unit in units for answer in await self._answers([unit])]

    async def _certain(self, units: Sequence[Unit], *, repeated: bool = False) -> list[Answer]:
        """Commit until the outcome is known: a lost connection may have lost only the answer."""
        pause, longest = RECONNECT_SECONDS
        while True:
            try:
                self.batches += 1
                self.units += len(units)
                faultpoint("before_commit")
                answers = await self._backend.commit(units)
                faultpoint("after_commit_before_answer")
                return await self._checked(units, answers) if repeated else answers
            except TransientConflictError:
                continue
            except ServerRestartedError:
                self.restarts += 1
                return await self._after_restart(units, repeated=repeated)
            except JournalUnavailableError as error:
                repeated = True
                logger.warning("The database is away (%s); %d writes wait", error, len(units))
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(pause * 2, longest)

    async def _after_restart(self, units: Sequence[Unit], *, repeated: bool) -> list[Answer]:
        """Commit units of runs that the database knows as we do; the others are refused, as by a fence."""
        lost = await self._lost_runs()
        kept = [unit for unit in units if lost.isdisjoint(unit.locks)]
        answers = iter(await self._certain(kept, repeated=repeated) if kept else [])
        return [next(answers) if lost.isdisjoint(unit.locks) else [] for unit in units]

    async def _lost_runs(self) -> AbstractSet[str]:
        """Return the runs of which the database has lost something; what waits for them is refused."""
        self._restarted = False
        lost = await self.find_lost()
        refused = [future for unit, future in self._waiting if not lost.isdisjoint(unit.locks)]
        self._waiting = [(unit, future) for unit, future in self._waiting if lost.isdisjoint(unit.locks)]
        for future in refused:
            _answer(future, [])
        return lost

    async def _checked(self, units: Sequence[Unit], answers: list[Answer]) -> list[Answer]:
        return [
            await self._backend.read(unit.check.statement, unit.check.params)
            if not answer and unit.check is not None
            else answer
            for unit, answer in zip(units, answers, strict=True)
        ]


def _answer(future: asyncio.Future[Rows], answer: Answer) -> None:
    if future.done():
        return  # the caller was cancelled; what it asked for stands
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


class Journal:
    """The journal as the engine uses it on an event loop: `do` commits a unit, `read` selects."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.writer = Writer(backend)

    @classmethod
    def open(cls, database: Database) -> Journal:
        """Return a journal for the running loop."""
        return cls(SqliteBackend(database) if database.is_sqlite else PostgresBackend(database))

    @property
    def restarts(self) -> int:
        """What has changed when what was read before may have been lost by the server."""
        return self.writer.restarts

    async def do(self, unit: Unit) -> Rows:
        """Commit `unit`; return its answer, empty when its fence or claim was refused."""
        return await self.writer.do(unit)

    async def read(self, statement: Statement, **params: object) -> Rows:
        """Return the rows of one SELECT; waits as long as the database is away."""
        pause, longest = RECONNECT_SECONDS
        while True:
            try:
                return await self._backend.read(statement, params)
            except ServerRestartedError:
                self.writer.server_restarted()
            except JournalUnavailableError as error:
                logger.warning("The database is away (%s); a read waits", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)

    async def time(self) -> float:
        """Return what time it is by the database's clock, in seconds since the epoch."""
        [(now, _)] = await self.read(READ_CLOCK)
        return float(now)

    async def close(self) -> None:
        """Commit what is waiting, then give up the connections."""
        await self.writer.close()
        await self._backend.close()
