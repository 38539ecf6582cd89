"""A journal on each kind of database, and sweepers on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clockwork import Clockwork

from polos.journal.database import Database


@pytest.fixture
def clockwork(database: Database) -> Iterator[Clockwork]:
    made = Clockwork(database)
    yield made
    made.close()
