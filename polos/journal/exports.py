"""Journals as JSON lines, to be kept and carried: whole trees of runs or all there is, of any revision.

The first line says what it is, each other one is a row: ``{"run": {…}}``, without what is null.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection as Open
from sqlalchemy import MetaData, Select, Table, and_, insert, or_, select
from sqlalchemy.exc import DBAPIError

from polos.encryption import Codec
from polos.errors import ConfigurationError
from polos.journal import schema
from polos.journal.database import Database
from polos.journal.tables import SEALED_COLUMNS

FORMAT = 1
GZIP = b"\x1f\x8b"
LEFT_OUT = frozenset({schema.VERSION_TABLE, "api_key"})  # the revision is in the first line; keys are secrets
OF_SESSIONS = ("session", "session_message", "session_summary")
Row = dict[str, Any]


@dataclass(frozen=True)
class Export:
    """Rows of a journal by table, and where they come from.

    Attributes:
        schema: Revision of the schema they were in.
        polos: Version that wrote them down.
        rows: By name of the table; columns that are null are left out.
    """

    schema: str
    polos: str
    rows: dict[str, list[Row]]

    def lines(self) -> Iterator[str]:
        """Return it as text, line by line."""
        yield json.dumps({"polos_journal": FORMAT, "schema": self.schema, "polos": self.polos})
        for table, rows in self.rows.items():
            for row in rows:
                yield json.dumps({table: row}, ensure_ascii=False, separators=(",", ":"))

    def write(self, path: Path) -> None:
        """Write it to a file, the same bytes for the same rows; compressed if its name ends in ``.gz``."""
        text = "".join(f"{line}\n" for line in self.lines()).encode()
        path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def read_export(path: Path) -> Export:
    """Return what a file holds, compressed or not.

    Raises:
        ConfigurationError: It is no export, or one of a later version; names the file and the line.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content.startswith(GZIP) else content).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{str(path)!r} cannot be read ({error})") from error
    return parse_export(text.splitlines(), name=str(path))


def parse_export(lines: Iterable[str], *, name: str) -> Export:
    """Return the export that these lines are; `name` is for messages.

    Raises:
        ConfigurationError: They are none.
    """
    rows: dict[str, list[Row]] = {}
    head: Row = {}
    for number, line in enumerate(lines, 1):
        try:
            table, row = _parsed(line, is_row=bool(head))
        except ValueError as error:
            raise ConfigurationError(f"{name!r}, line {number}: not a row of a journal ({error})") from error
        if head:
            rows.setdefault(table, []).append(row)
        else:
            head = _head(row, name)
    if not head:
        raise ConfigurationError(f"{name!r} is empty, not a journal; 'polos runs export' writes one")
    return Export(str(head["schema"]), str(head["polos"]), rows)


def _parsed(line: str, *, is_row: bool) -> tuple[str, Row]:
    found = json.loads(line)
    if is_row and isinstance(found, dict) and len(found) == 1:
        [(table, found)] = found.items()
    else:
        table = ""
    if not isinstance(found, dict) or (is_row and not table):
        raise ValueError("want an object")
    return table, found


def _head(first: Row, name: str) -> Row:
    if not {"polos_journal", "schema", "polos"} <= first.keys():
        raise ConfigurationError(f"{name!r} is no journal; 'polos runs export' writes one")
    if first["polos_journal"] != FORMAT:
        raise ConfigurationError(
            f"{name!r} has format {first['polos_journal']!r}; this version of polos reads {FORMAT}"
        )
    return first


def export(database: Database, *, roots: Sequence[str] | None = None, polos: str) -> Export:
    """Return the rows of whole trees with what their sessions remember, or of all there is but API keys.

    Reads the database as it is, at whatever revision; in one transaction, so that the rows fit together.

    Raises:
        ConfigurationError: The database has no schema.
        EncryptionError: A value is encrypted with a key that is not here.
        JournalUnavailableError: It does not answer.
    """
    found = schema.current_version(database)
    if found is None:
        raise ConfigurationError(f"{database} has no schema, so there is nothing to export")
    with schema.connection(database) as opened:
        _begin(opened, database)
        tables = _reflected(opened)
        names = [name for name in tables if name not in LEFT_OUT]
        chosen = {name: _chosen(name, tables, roots) for name in names}
        rows = {
            name: [_readable(name, row, database.codec) for row in opened.execute(query).mappings()]
            for name, query in chosen.items()
            if query is not None
        }
    return Export(found, polos, {name: found for name, found in rows.items() if found})


def restore(wanted: Export, database: Database) -> None:
    """Put an export into an empty database, at the revision it was made at.

    Raises:
        SchemaVersionError: It comes from a later version of polos.
        ConfigurationError: The database is not empty, or a row does not fit.
    """
    if schema.current_version(database) is not None:
        raise ConfigurationError(f"{database} is not empty; a journal is restored into a database of its own")
    schema.upgrade(database, to=wanted.schema)
    with schema.connection(database) as opened:
        _begin(opened, database)
        tables = _reflected(opened)
        for name, rows in wanted.rows.items():
            _fill(opened, tables, name, rows)
        opened.commit()


def _begin(opened: Open, database: Database) -> None:
    """Begin a transaction that sees one state of the database throughout."""
    if database.is_sqlite:
        opened.exec_driver_sql("BEGIN")  # the driver leaves that to us
    else:
        opened.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def _reflected(opened: Open) -> dict[str, Table]:
    metadata = MetaData()
    metadata.reflect(opened)
    return dict(sorted(metadata.tables.items()))


def _chosen(name: str, tables: dict[str, Table], roots: Sequence[str] | None) -> Select[Any] | None:
    """Return which rows of a table belong to the trees, None if none can."""
    table = tables[name]
    query = select(table).order_by(*table.primary_key.columns)
    if roots is None:
        return query
    run = tables["run"].alias("chosen")
    among = run.c.root_id.in_(roots)
    if name == "run":
        return query.where(table.c.root_id.in_(roots))
    if name in {"step", "event_wait"}:
        return query.where(table.c.run_id.in_(select(run.c.id).where(among)))
    if name == "event":
        topic = "workflow/" + run.c.root_name + "/" + run.c.root_id
        return query.where(or_(table.c.topic.in_(select(topic).where(among)), table.c.run_id.in_(roots)))
    if name in OF_SESSIONS:
        same = and_(run.c.project == table.c.project, run.c.session_id == table.c.session_id)
        return query.where(select(run.c.id).where(among, same).exists())
    return None


def _readable(table: str, row: Any, codec: Codec) -> Row:
    """Return a row without its nulls, its encrypted values opened: whoever has an export can read it."""
    found = {name: value for name, value in row.items() if value is not None}
    sealed = SEALED_COLUMNS.get(table, frozenset())
    return {name: codec.open(value) if name in sealed else value for name, value in found.items()}


def _fill(opened: Open, tables: dict[str, Table], name: str, rows: Sequence[Row]) -> None:
    table = tables.get(name)
    if table is None:
        raise ConfigurationError(f"The journal has rows of {name!r}; its revision has no such table")
    columns = [column.name for column in table.columns]
    if unknown := sorted({key for row in rows for key in row} - set(columns)):
        raise ConfigurationError(f"The journal has {name}.{unknown[0]}; its revision has no such column")
    try:
        opened.execute(insert(table), [{column: row.get(column) for column in columns} for row in rows])
    except DBAPIError as error:
        raise ConfigurationError(f"A row of {name!r} in the journal does not fit ({error.orig})") from error
