"""PostgreSQL connections, blocking and asyncio. A batch is one pipeline: one round trip whatever it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import errors as sql_errors
from sqlalchemy import Dialect

from polos.encryption import PLAIN, Codec
from polos.errors import JournalUnavailableError
from polos.journal.pipelines import Command, run_together, run_together_async
from polos.journal.postgres_sessions import Session, begin, begin_async
from polos.journal.statements import Answer, Params, Rows, Statement, Unit, certain, opened_answers

LOCK_RUNS = "SELECT 1 FROM run WHERE id = ANY(%s) ORDER BY root_id, depth, id FOR NO KEY UPDATE"
LOCK_TOPICS = (
    "SELECT 1 FROM topic WHERE (project, name) IN (SELECT * FROM unnest(%s::text[], %s::text[])) "
    "ORDER BY project, name FOR NO KEY UPDATE"
)
LOCK_SESSIONS = (
    "SELECT 1 FROM session WHERE (project, session_id, agent) IN "
    "(SELECT * FROM unnest(%s::text[], %s::text[], %s::text[])) "
    "ORDER BY project, session_id, agent FOR NO KEY UPDATE"
)
_LOST = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    sql_errors.ReadOnlySqlTransaction,
)
_LIMIT_EXCEEDED = "54"  # class of errors of content, such as a value too long for an index; no outage


class TransientConflictError(Exception):
    """A deadlock or serialisation failure: nobody's fault, run the same again."""


def commands(
    units: Sequence[Unit], dialect: Dialect, codec: Codec = PLAIN
) -> tuple[list[Command], list[int]]:
    """Return what to send for `units`, and which command answers each unit.

    A lone statement is sent alone, in autocommit. Otherwise a transaction locks all run rows first, in one
    order; every statement carries its own guard, because a pipeline sends all without looking.
    """
    body: list[Command] = []
    answers: list[int] = []
    for unit in units:
        parts, answer = unit.for_dialect(dialect)
        answers.append(len(body) + answer)
        for part in parts:
            text = part.statement.compiled(dialect)
            body.append((text.text, text.bind(part.params, codec)))
    locks = sorted({run for unit in units for run in unit.locks})
    if len(body) == 1 and len(locks) < 2:
        return body, answers
    head: list[Command] = [("BEGIN", None)]
    if len(locks) > 1 or any(unit.locks_first for unit in units):
        head.append((LOCK_RUNS, (locks,)))
    topics = sorted({topic for unit in units for topic in unit.topics})
    if len(topics) > 1:
        head.append((LOCK_TOPICS, [list(column) for column in zip(*topics, strict=True)]))
    sessions = sorted({session for unit in units for session in unit.sessions})
    if len(sessions) > 1:
        head.append((LOCK_SESSIONS, [list(column) for column in zip(*sessions, strict=True)]))
    return [*head, *body, ("COMMIT", None)], [place + len(head) for place in answers]


def translated(error: psycopg.Error) -> Exception:
    """Return our error for one of the driver's: lost, transient, or itself when the content is at fault."""
    if error.sqlstate in {"40001", "40P01"}:
        return TransientConflictError(str(error))
    if isinstance(error, _LOST) and not (error.sqlstate or "").startswith(_LIMIT_EXCEEDED):
        return JournalUnavailableError(str(error).strip() or type(error).__name__)
    return error


class ServerRestartedError(JournalUnavailableError):
    """The server is not the one, or has crashed and come back: it may have lost what it had answered."""


class PostgresConnection:
    """One blocking connection.

    Attributes:
        is_pooled: Whether a pooler stands between us and the server: our session may be others' as well.
    """

    def __init__(self, info: str, dialect: Dialect, codec: Codec = PLAIN) -> None:
        self._dialect = dialect
        self._codec = codec
        try:
            self.driver = psycopg.connect(info, autocommit=True)
            self.is_pooled = self._begin().is_pooled
        except psycopg.Error as error:
            raise JournalUnavailableError(str(error).strip()) from error

    def _begin(self) -> Session:
        try:
            return begin(self.driver)
        except BaseException:
            self.driver.close()
            raise

    def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""
        text = statement.compiled(self._dialect)
        try:
            rows = self.driver.execute(text.text, text.bind(params, self._codec)).fetchall()
        except psycopg.Error as error:
            raise translated(error) from error
        return text.opened(rows, self._codec)

    def commit(self, units: Sequence[Unit]) -> list[Rows]:
        """Run `units` as one transaction; return each one's answer."""
        try:
            answers = self._commit(*commands(units, self._dialect, self._codec))
        except psycopg.Error as error:
            self._rollback()
            raise translated(error) from error
        return certain(opened_answers(units, answers, self._dialect, self._codec))

    def close(self) -> None:
        """Close the connection; closing twice is harmless."""
        self.driver.close()

    def _commit(self, wanted: Sequence[Command], answers: Sequence[int]) -> list[Rows]:
        if len(wanted) == 1:
            return [_rows(self.driver.execute(*wanted[0]))]
        cursors = run_together(self.driver, wanted)
        return [_rows(cursors[place]) for place in answers]

    def _rollback(self) -> None:
        if (
            not self.driver.closed
            and self.driver.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
        ):
            try:
                self.driver.rollback()
            except psycopg.Error:
                self.driver.close()  # the transaction ends with its connection


class AsyncPostgresConnection:
    """One connection on an event loop; opens and reopens itself. Not for two tasks at once.

    The first use after the server has restarted raises `ServerRestartedError`; the next one goes on.
    """

    def __init__(self, info: str, dialect: Dialect, codec: Codec = PLAIN) -> None:
        self._info = info
        self._dialect = dialect
        self._codec = codec
        self._driver: psycopg.AsyncConnection[Any] | None = None
        self._server = ""

    async def read(self, statement: Statement, params: Params) -> Rows:
        """Return the rows of one SELECT."""
        text = statement.compiled(self._dialect)
        try:
            cursor = await (await self._open()).execute(text.text, text.bind(params, self._codec))
            rows = await cursor.fetchall()
        except psycopg.Error as error:
            raise translated(error) from error
        return text.opened(rows, self._codec)

    async def commit(self, units: Sequence[Unit]) -> list[Answer]:
        """Run `units` as one transaction in one round trip; return each one's answer."""
        try:
            driver = await self._open()
            answers = await self._commit(driver, *commands(units, self._dialect, self._codec))
        except psycopg.Error as error:
            await self._rollback()
            raise translated(error) from error
        return opened_answers(units, answers, self._dialect, self._codec)

    async def close(self) -> None:
        """Close the connection; it opens again on the next use."""
        driver, self._driver = self._driver, None
        if driver is not None:
            await driver.close()

    async def _open(self) -> psycopg.AsyncConnection[Any]:
        if self._driver is None or self._driver.closed:
            driver = await psycopg.AsyncConnection.connect(self._info, autocommit=True)
            try:
                session = await begin_async(driver)
            except BaseException:
                await driver.close()
                raise
            self._driver = driver
            before, self._server = self._server, session.server
            if before and session.server != before:
                raise ServerRestartedError(f"the server was started again at {session.server}")
        return self._driver

    @staticmethod
    async def _commit(
        driver: psycopg.AsyncConnection[Any], wanted: Sequence[Command], answers: Sequence[int]
    ) -> list[Rows]:
        if len(wanted) == 1:
            cursor = await driver.execute(*wanted[0])
            return [await cursor.fetchall() if cursor.description else []]
        cursors = await run_together_async(driver, wanted)
        return [await cursors[place].fetchall() if cursors[place].description else [] for place in answers]

    async def _rollback(self) -> None:
        driver = self._driver
        if driver is None or driver.closed:
            return
        if driver.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            try:
                await driver.rollback()
            except psycopg.Error:
                await self.close()  # the transaction ends with its connection


def _rows(cursor: psycopg.Cursor[Any]) -> Rows:
    return cursor.fetchall() if cursor.description else []
