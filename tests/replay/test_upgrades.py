"""Moving the schema forward: once, whole, and beside workers that go on."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import nursery
import psycopg
import pytest
from alembic.script import ScriptDirectory
from services import Postgres

from polos.errors import JournalUnavailableError, SchemaVersionError
from polos.journal import schema
from polos.journal.database import Database
from polos.journal.exports import export, read_export, restore

OLDEST = Path(__file__).parent / "journals" / "schema-0001.jsonl.gz"
MIDDLE = "0005"
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A journal of the first revision, full of rows."""
    if request.param == "sqlite":
        old = Database(f"sqlite:///{tmp_path / 'journal.db'}")
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        old = Database(server.create_database(empty=True))
    restore(read_export(OLDEST), old)
    return old


@pytest.fixture
def processes() -> Iterator[list[nursery.Process]]:
    started: list[nursery.Process] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def upgrading(database: Database, folder: Path, **fault: str) -> nursery.Process:
    """Start ``polos db upgrade``."""
    url = database.url.render_as_string(hide_password=False)
    command = [str(Path(sys.executable).with_name("polos")), "db", "upgrade"]
    environment = {**os.environ, "POLOS_DATABASE_URL": url, **fault}
    with (folder / "upgrade.log").open("ab") as log:
        return nursery.start(command, cwd=folder, env=environment, stdout=log, stderr=log)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


def test_an_upgrade_that_is_killed_on_the_way_has_changed_nothing(
    database: Database, tmp_path: Path, processes: list[nursery.Process]
) -> None:
    before = export(database, polos="")
    processes.append(upgrading(database, tmp_path, POLOS_FAULT=f"in_upgrade:kill9:1:{MIDDLE}"))
    assert processes[0].wait(30) == -signal.SIGKILL

    assert export(database, polos="") == before
    assert schema.upgrade(database) == "0001"
    assert schema.current_version(database) == schema.HEAD


def test_of_two_that_upgrade_at_once_one_does_and_the_other_waits(
    database: Database, tmp_path: Path, processes: list[nursery.Process]
) -> None:
    marker = tmp_path / "stopped"
    fault = {"POLOS_FAULT": f"in_upgrade:stop:1:{MIDDLE}", "POLOS_FAULT_FILE": str(marker)}
    processes.append(upgrading(database, tmp_path, **fault))
    until(marker.exists)
    found: list[str | None] = []
    other = threading.Thread(target=lambda: found.append(schema.upgrade(database)))
    other.start()
    if not database.is_sqlite:
        until(lambda: _waits_for(database, "advisory"))
    assert found == []
    os.kill(processes[0].pid, signal.SIGCONT)

    other.join(30)
    assert found == [schema.HEAD]
    assert processes[0].wait(30) == 0
    assert "upgraded from revision 0001" in (tmp_path / "upgrade.log").read_text()


def _waits_for(database: Database, kind: str) -> bool:
    query = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = %s "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with psycopg.connect(database.conninfo, autocommit=True) as connection:
        [(count,)] = connection.execute(query, (kind,)).fetchall()
    return bool(count)


def test_every_migration_refuses_to_be_taken_back() -> None:
    folder = Path(schema.__file__).with_name("migrations")
    for script in ScriptDirectory(str(folder)).walk_revisions():
        with pytest.raises(RuntimeError, match="restore a backup"):
            script.module.downgrade()


on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def older_polos(database: Database, monkeypatch: pytest.MonkeyPatch) -> str:
    """This process is of the version before; the database was upgraded by the one after."""
    schema.upgrade(database)
    known = schema.known_versions()
    monkeypatch.setattr(schema, "HEAD", known[-2])
    monkeypatch.setattr(schema, "known_versions", lambda: known[:-1])
    return known[-1]


def test_processes_of_the_version_before_may_still_start(
    database: Database, older_polos: str, caplog: pytest.LogCaptureFixture
) -> None:
    schema.prepare(database)
    schema.check(database)
    assert schema.current_version(database) == older_polos
    assert "is newer than this version of polos knows" in caplog.text


@on_sqlite
def test_those_of_versions_long_past_may_not(database: Database, older_polos: str) -> None:
    with schema.connection(database) as opened:
        opened.exec_driver_sql(f"UPDATE {schema.VERSION_TABLE} SET oldest_beside = '{older_polos}'")
        opened.commit()
    for refused in (schema.prepare, schema.check):
        with pytest.raises(SchemaVersionError, match="newer than this version of polos knows; upgrade"):
            refused(database)


@on_sqlite
def test_an_older_polos_does_not_upgrade_a_newer_database(database: Database, older_polos: str) -> None:
    with pytest.raises(SchemaVersionError, match="newer than this version of polos knows; upgrade"):
        schema.upgrade(database)
    assert schema.current_version(database) == older_polos


@pytest.fixture
def postgres(postgres_server: Postgres) -> Database:
    """A journal on PostgreSQL whose next migration changes `step`, then `run`."""
    database = Database(postgres_server.create_database(empty=True))
    schema.upgrade(database, to="0006")
    return database


def test_a_migration_that_locks_itself_up_with_a_worker_begins_anew(postgres: Database) -> None:
    """The worker holds `run` and wants `step`, the migration the other way round: the migration gives way."""
    with closing(psycopg.connect(postgres.conninfo)) as worker:
        worker.execute("UPDATE run SET seq = seq")
        migration = threading.Thread(target=schema.upgrade, args=(postgres,), kwargs={"to": "0007"})
        migration.start()
        until(lambda: _waits_for(postgres, "relation"))
        worker.execute("UPDATE step SET seq = seq")  # fails if it is the worker's that is broken off
        worker.commit()
        migration.join(30)
    assert schema.current_version(postgres) == "0007"


def test_a_migration_gives_up_where_others_hold_tables_for_long(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_SECONDS", 0.05)
    monkeypatch.setattr(schema, "LOCK_PAUSE_SECONDS", 0.01)
    with closing(psycopg.connect(postgres.conninfo)) as dump:
        dump.execute("SELECT count(*) FROM step")
        with pytest.raises(JournalUnavailableError, match="repeat 'polos db upgrade'"):
            schema.upgrade(postgres)
    assert schema.current_version(postgres) == "0006"
    assert schema.upgrade(postgres) == "0006"
