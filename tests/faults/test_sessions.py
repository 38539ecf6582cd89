"""Sessions of PostgreSQL over TCP: both ends notice a cut; behind a pooler nothing rests on a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import PostgresDaemon, postgres_daemon
from pooler import Pooler, pooler, why_no_pooler
from sqlalchemy import make_url

from polos.connections import Connections
from polos.errors import ConfigurationError
from polos.journal.database import Database
from polos.journal.liveness import NO_LOCK, PostgresLiveness, lock_key
from polos.journal.postgres import PostgresConnection
from polos.journal.postgres_sessions import conninfo
from polos.journal.workers import READ_CLOCK, SeenWorker
from polos.settings import Settings

MODES = ("session", "transaction")
OFTEN = 12  # psycopg prepares a statement that it has seen five times


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresDaemon]:
    with postgres_daemon() as running:
        yield running


@pytest.fixture(params=MODES)
def between(request: pytest.FixtureRequest, server: PostgresDaemon, tmp_path: Path) -> Iterator[Pooler]:
    if reason := why_no_pooler():
        pytest.skip(reason)
    with pooler(tmp_path / "pooler", server, request.param) as running:
        yield running


def opened(url: str) -> PostgresConnection:
    connection = Database(url).connect()
    assert isinstance(connection, PostgresConnection)
    return connection


def seen(worker_id: str, key: int) -> SeenWorker:
    return SeenWorker(worker_id, "w@here", "polos", key, 0.0, 0.0)


def test_the_server_gives_up_a_session_that_was_cut_off(server: PostgresDaemon) -> None:
    """By default it would keep its locks for two hours."""
    connection = opened(server.url)
    names = ("tcp_keepalives_idle", "tcp_user_timeout", "idle_in_transaction_session_timeout")
    found = [connection.driver.execute(f"SHOW {name}").fetchall()[0][0] for name in names]
    connection.close()
    assert found == ["5", "9000", "10s"]


def test_what_a_url_says_comes_before_our_timeouts() -> None:
    url = make_url("postgresql+psycopg://u@h/d?connect_timeout=7&tcp_user_timeout=20000")
    for impatient in (False, True):
        info = conninfo(url, impatient=impatient)
        assert info.startswith("postgresql://u@h/d?")
        assert "connect_timeout=7" in info
        assert "tcp_user_timeout=20000" in info
    assert "keepalives_idle=1&" in conninfo(url, impatient=True)


def test_a_lock_is_held_on_the_server_itself(server: PostgresDaemon) -> None:
    liveness, connection, other = PostgresLiveness(), opened(server.url), opened(server.url)
    assert liveness.hold("w", connection)
    assert liveness.lock_key("w") == lock_key("w")
    assert liveness.free([seen("w", lock_key("w")), seen("x", lock_key("x"))], other) == {"x"}
    connection.close()
    other.close()


def test_behind_a_pooler_a_worker_has_no_lock_that_could_be_free(
    server: PostgresDaemon, between: Pooler, caplog: pytest.LogCaptureFixture
) -> None:
    liveness, connection, direct = PostgresLiveness(), opened(between.url), opened(server.url)
    assert liveness.hold("w", connection)
    assert liveness.lock_key("w") == NO_LOCK
    assert liveness.free([seen("w", NO_LOCK)], direct) == set()
    assert direct.driver.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchall() == [
        (0,)
    ]
    assert "POLOS_DATABASE_DIRECT_URL" in caplog.text
    connection.close()
    direct.close()


def test_behind_a_pooler_no_statement_is_prepared(between: Pooler) -> None:
    connections = [opened(between.url) for _ in range(2)]
    for _ in range(OFTEN):
        for connection in connections:
            assert connection.read(READ_CLOCK, {})
    assert not any(connection.driver._prepared._names for connection in connections)
    for connection in connections:
        connection.close()


def test_the_way_around_a_pooler_leads_to_postgresql() -> None:
    settings = Settings(
        database_url="postgresql://u@pooler/d",
        database_direct_url="sqlite:////tmp/other.db",
        broker_url="redis://127.0.0.1:1/0",
    )
    with pytest.raises(ConfigurationError, match="POLOS_DATABASE_DIRECT_URL names another kind"):
        Connections(settings)
