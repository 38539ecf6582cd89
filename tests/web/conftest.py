"""A model that says what tests tell it to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from told_model import ToldModel, told_model


@pytest.fixture(scope="module")
def model() -> Iterator[ToldModel]:
    with told_model() as running:
        yield running
