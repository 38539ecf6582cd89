"""Puts this folder on the path, so that every test can import `services`, and starts each server once.

What tests want printed at the end reaches it from every process of pytest-xdist.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from reports import REPORTS, Culprit, escaped
from services import Postgres, emptied, postgres, sqlite_url, valkey

from polos import registry
from polos.journal.database import Database
from polos.registry import get_all_workflows, get_workflow


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORTS] = {}
    config.pluginmanager.register(Culprit())


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["reports"] = session.config.stash[REPORTS]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    node.config.stash[REPORTS].update(getattr(node, "workeroutput", {}).get("reports", {}))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape what UTF-8 cannot hold: it would end the process of pytest-xdist, and nobody would read why."""
    return escaped((yield))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for title, lines in config.stash[REPORTS].items():
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.line(line)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests/e2e last: it keeps a worker in this process, and Celery has room for one at a time."""
    items.sort(key=lambda item: "e2e" in item.path.parts)


@pytest.fixture(autouse=True)
def ids_are_given_back() -> Iterator[None]:
    """What a test defines under the id of another test's workflow is not served to that test."""
    before = get_all_workflows()
    yield
    for definition in before.values():
        if get_workflow(definition.id) is not definition:
            registry._definitions[definition.id] = definition


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    with valkey() as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_journal(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return Database(sqlite_url(Path(tmp_path_factory.mktemp("journal"))))


@pytest.fixture(scope="session")
def postgres_journal(postgres_server: Postgres) -> Database:
    return Database(postgres_server.create_database())


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty journal, on SQLite and on PostgreSQL."""
    name = "sqlite_journal" if request.param == "sqlite" else "postgres_journal"
    return emptied(request.getfixturevalue(name))
