"""A journal on each kind of database, and connections driven by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hands import Together
from scenes import Scene
from services import emptied

from polos.journal.database import Database


@pytest.fixture
def postgres_only(postgres_journal: Database) -> Database:
    return emptied(postgres_journal)


@pytest.fixture
def scene(database: Database) -> Iterator[Scene]:
    """Runs and turns in that journal."""
    acting = Scene(database)
    yield acting
    acting.close()


@pytest.fixture
def together() -> Iterator[Together]:
    threads = Together()
    yield threads
    threads.join()
