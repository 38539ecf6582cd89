"""What a journal holds unencrypted of the columns that may be encrypted."""

from __future__ import annotations

from sqlalchemy import create_engine, select

from polos.encryption import PREFIX
from polos.journal.database import Database
from polos.journal.sealing import Sealed
from polos.journal.tables import JournalTable

# Written by SQL itself, the same for everybody.
CONSTANTS = {"the child run is not in the journal"}


def raw_rows(database: Database) -> list[tuple[str, str, str]]:
    """Return (table, column, value) of all texts, as they are stored."""
    url = database.url.set(drivername="sqlite" if database.is_sqlite else "postgresql+psycopg")
    engine = create_engine(url)
    found = []
    with engine.connect() as connection:
        for table in JournalTable.metadata.tables.values():
            for row in connection.execute(select(table)).mappings():
                found += [(table.name, name, value) for name, value in row.items() if isinstance(value, str)]
    engine.dispose()
    return found


def unsealed(database: Database) -> list[tuple[str, str, str]]:
    """Return what is not encrypted of what may be."""
    tables = JournalTable.metadata.tables
    return [
        (table, column, value)
        for table, column, value in raw_rows(database)
        if isinstance(tables[table].c[column].type, Sealed)
        if not value.startswith(PREFIX) and value not in CONSTANTS
    ]
