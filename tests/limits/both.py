"""The databases that tests of limits run on, where SQL matters."""

import pytest

on_both = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
on_postgres = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
