"""A journal on each kind of database, and what happens to events in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from post import Post

from polos.journal.database import Database


@pytest.fixture
def post(database: Database) -> Iterator[Post]:
    made = Post(database)
    yield made
    made.close()
