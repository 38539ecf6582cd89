"""A journal in memory is made from the tables; those in use are made by the migrations: they are the same."""

from __future__ import annotations

from typing import Any

from services import sqlite_url
from sqlalchemy import create_engine, inspect
from sqlalchemy.pool import StaticPool

from polos.journal.database import Database
from polos.journal.in_memory import MemoryDatabase
from polos.journal.schema import VERSION_TABLE


def shape(engine: Any) -> dict[str, Any]:
    """Return the columns and indexes of each table, whatever their order."""
    found = inspect(engine)
    return {table: _shape_of(found, table) for table in found.get_table_names() if table != VERSION_TABLE}


def _shape_of(found: Any, table: str) -> tuple[Any, ...]:
    columns = {each["name"]: (str(each["type"]), each["nullable"]) for each in found.get_columns(table)}
    indexes = [(each["name"], each["column_names"], each["unique"]) for each in found.get_indexes(table)]
    return columns, found.get_pk_constraint(table)["constrained_columns"], sorted(indexes)


def test_the_schema_in_memory_is_that_of_the_migrations(tmp_path: Any) -> None:
    memory = MemoryDatabase(lambda: 0.0)
    in_memory = create_engine("sqlite://", creator=lambda: memory.driver, poolclass=StaticPool)
    migrated = create_engine(Database(sqlite_url(tmp_path)).url)

    assert shape(in_memory) == shape(migrated)
    migrated.dispose()
    memory.close()
