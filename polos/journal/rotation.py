"""Encrypting again what the journal holds, after a change of keys: row by row, beside workers that go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, bindparam, func, or_, select, tuple_, type_coerce, update

from polos.encryption import PREFIX, Cipher
from polos.journal.database import Connection
from polos.journal.postgres import TransientConflictError
from polos.journal.sealing import Sealed
from polos.journal.statements import Part, Row, Rows, Statement, Unit
from polos.journal.tables import JournalTable

BATCH_ROWS = 20  # of up to a megabyte each; runs are locked while one batch is written
P = bindparam


@dataclass(frozen=True)
class SealedTable:
    """A table with columns that may be encrypted, read and written as it is stored."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    first_page: Statement
    next_page: Statement
    writes: dict[str, Statement]


@dataclass(frozen=True)
class Progress:
    """How far a table is."""

    table: str
    looked_at: int
    changed: int


def sealed_tables(head: str | None) -> list[SealedTable]:
    """Return the tables, with statements that read what is not sealed by the key of `head`.

    `head` is what begins texts that are as they shall be; None: they shall not be sealed.
    """
    tables = JournalTable.metadata.sorted_tables
    return [_sealed(table, head) for table in tables if _columns(table)]


def rotate(journal: Connection, codec: Cipher, *, batch_rows: int = BATCH_ROWS) -> Iterator[Progress]:
    """Seal with the first key whatever is stored otherwise; yields after each batch.

    Broken off, it is begun again where it was: what is done is not read again. A value that somebody changes
    meanwhile is left to them.

    Raises:
        EncryptionError: A value is encrypted with a key that is not here.
    """
    for table in sealed_tables(_head(codec)):
        yield from _rotate_table(journal, codec, table, batch_rows)


def counts(journal: Connection, codec: Cipher) -> dict[str, dict[str, int]]:
    """Return how many values each table has under each key: by id, ``""`` for those that are not encrypted.

    Those under keys that are not here are counted as ``"?"``.
    """
    return {table.name: _counted(journal, codec, table) for table in sealed_tables(None)}


def _head(codec: Cipher) -> str | None:
    return None if codec.first is None else f"{PREFIX}{codec.first}:"


def _columns(table: Any) -> tuple[str, ...]:
    return tuple(column.name for column in table.c if isinstance(column.type, Sealed))


def _sealed(table: Any, head: str | None) -> SealedTable:
    key = tuple(column.name for column in table.primary_key)
    columns = _columns(table)
    keys = [table.c[name] for name in key]
    page = (
        select(*keys, *(_raw(table.c[name]) for name in columns))
        .where(or_(*(_is_stale(table.c[name], head) for name in columns)))
        .order_by(*keys)
        .limit(P("most"))
    )
    after = tuple_(*keys) > tuple_(*(P(f"after_{name}", type_=table.c[name].type) for name in key))
    return SealedTable(
        table.name,
        key,
        columns,
        Statement(page),
        Statement(page.where(after)),
        {name: _write(table, key, name) for name in columns},
    )


def _raw(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column as it is stored: its type does not tell that it may be sealed."""
    return type_coerce(column, Text())


def _is_stale(column: ColumnElement[Any], head: str | None) -> ColumnElement[bool]:
    if head is None:
        return func.substr(column, 1, len(PREFIX)) == PREFIX
    return and_(column.is_not(None), func.substr(column, 1, len(head)) != head)


def _write(table: Any, key: tuple[str, ...], name: str) -> Statement:
    same = [table.c[each] == P(f"key_{each}", type_=table.c[each].type) for each in key]
    return Statement(
        update(table)
        .where(*same, _raw(table.c[name]) == P("found", type_=Text()))  # else it was changed meanwhile
        .values({name: P("sealed", type_=Text())})
        .returning(table.c[key[0]])
    )


def _rotate_table(
    journal: Connection, codec: Cipher, table: SealedTable, batch_rows: int
) -> Iterator[Progress]:
    after: dict[str, Any] = {}
    while rows := journal.read(table.next_page if after else table.first_page, {"most": batch_rows, **after}):
        units = [unit for row in rows for unit in _units(table, row, codec)]
        yield Progress(table.name, len(rows), _committed(journal, units))
        after = {f"after_{name}": value for name, value in zip(table.key, rows[-1], strict=False)}


def _units(table: SealedTable, row: Row, codec: Cipher) -> list[Unit]:
    key = {f"key_{name}": value for name, value in zip(table.key, row, strict=False)}
    head = _head(codec)
    # Whoever writes steps of a run has its row locked; so have we.
    run = row[0] if table.name in {"run", "step"} else None
    units = []
    for name, found in zip(table.columns, row[len(table.key) :], strict=True):
        if found is not None and not _is_done(found, head):
            params = {**key, "found": found, "sealed": codec.seal(codec.open(found))}
            parts = (Part(table.writes[name], params),)
            units.append(Unit(parts, () if run is None else (run,), locks_first=run is not None))
    return units


def _is_done(found: str, head: str | None) -> bool:
    return not found.startswith(PREFIX) if head is None else found.startswith(head)


def _committed(journal: Connection, units: list[Unit]) -> int:
    while True:
        try:
            answers: list[Rows] = journal.commit(units)
        except TransientConflictError:
            continue  # a worker was first; the rows are as they were
        return sum(bool(rows) for rows in answers)


def _counted(journal: Connection, codec: Cipher, table: SealedTable) -> dict[str, int]:
    found: dict[str, int] = {}
    source = JournalTable.metadata.tables[table.name]
    for name in table.columns:
        column = source.c[name]
        heads = {key: f"{PREFIX}{key}:" for key in codec.key_ids}
        known = [func.count().filter(func.substr(column, 1, len(head)) == head) for head in heads.values()]
        sealed = func.count().filter(func.substr(column, 1, len(PREFIX)) == PREFIX)
        [row] = journal.read(Statement(select(func.count(column), sealed, *known)), {})
        total, all_sealed, *of_keys = row
        for key, count in zip(heads, of_keys, strict=True):
            found[key] = found.get(key, 0) + count
        found[""] = found.get("", 0) + total - all_sealed
        found["?"] = found.get("?", 0) + all_sealed - sum(of_keys)
    return found
