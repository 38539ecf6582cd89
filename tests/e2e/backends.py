"""The databases that core tests run on."""

import pytest

on_both = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True, scope="session")
