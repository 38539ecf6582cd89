"""How sessions of PostgreSQL are opened: silent cuts are noticed at both ends, poolers are recognised.

A URL may say otherwise in libpq's words, such as ``?connect_timeout=10&tcp_user_timeout=20000``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import URL

# Within the silence limit of workers. Times are seconds, that of `tcp_user_timeout` milliseconds.
DEFAULTS: Mapping[str, str] = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "2",
    "tcp_user_timeout": "9000",
}
# A beat that is lost has to be sent again, by another connection, before the silence is taken for death.
IMPATIENT: Mapping[str, str] = {
    "connect_timeout": "2",
    "keepalives_idle": "1",
    "keepalives_interval": "1",
    "keepalives_count": "2",
    "tcp_user_timeout": "2500",
}
# What the server is told: without it a session that was cut off keeps its locks for two hours.
_SERVER_SIDE: Mapping[str, str] = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": "9000",
    "idle_in_transaction_session_timeout": "10000",
}
_SET = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _SERVER_SIDE.items())
# A pooler answers for a server process of its own choice, whose settings would be those of others, too.
_BEGIN = (
    "SELECT pg_backend_pid(), pg_postmaster_start_time()::text,"
    f" CASE WHEN pg_backend_pid() = %s::int THEN concat({_SET}) END"
)


@dataclass(frozen=True)
class Session:
    """What is known of a session.

    Attributes:
        is_pooled: A pooler stands between us and the server: our session may be others' as well.
        server: Which start of which server it is with; empty where a pooler may change that unseen.
    """

    is_pooled: bool
    server: str


def conninfo(url: URL, *, impatient: bool = False) -> str:
    """Return libpq's connection string for a SQLAlchemy URL of any PostgreSQL driver."""
    query = {**DEFAULTS, **(IMPATIENT if impatient else {}), **url.query}
    return url.set(drivername="postgresql", query=query).render_as_string(hide_password=False)


def begin(driver: psycopg.Connection[Any]) -> Session:
    """Set a new session up."""
    [(pid, started, _)] = driver.execute(_BEGIN, (driver.info.backend_pid,)).fetchall()
    return _noted(driver, pid, started)


async def begin_async(driver: psycopg.AsyncConnection[Any]) -> Session:
    """Set a new session up, on an event loop."""
    cursor = await driver.execute(_BEGIN, (driver.info.backend_pid,))
    [(pid, started, _)] = await cursor.fetchall()
    return _noted(driver, pid, started)


def _noted(driver: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], pid: int, started: str) -> Session:
    if pid == driver.info.backend_pid:
        return Session(is_pooled=False, server=started)
    # Poolers make up the number that goes with a session. The next transaction may be another process's.
    driver.prepare_threshold = None
    return Session(is_pooled=True, server="")
