"""Statements in SQLAlchemy Core, compiled once per dialect, and units: what is committed together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Dialect, Executable, Float, Text, bindparam, func, literal_column
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from polos.encryption import PLAIN, Codec
from polos.errors import EncryptionError
from polos.journal.sealing import open_rows, seal_params, sealed_columns, sealed_params

Row = tuple[Any, ...]
Rows = list[Row]
Answer = Rows | Exception
Params = Mapping[str, Any]


def _written(element: type, *, sqlite: str, postgresql: str) -> None:
    """Have an element written as these texts, in which ``{}`` stands for its arguments."""
    for dialect, text in (("sqlite", sqlite), ("postgresql", postgresql)):

        def write(element: Any, compiler: SQLCompiler, text: str = text, **kw: Any) -> str:
            return text.format(compiler.process(element.clauses, **kw))

        compiles(element, dialect)(write)


class now(FunctionElement[float]):  # noqa: N801 - reads as a SQL function
    """The database's clock, in seconds since the epoch with milliseconds."""

    type = Float()
    inherit_cache = True


class latest(FunctionElement[float]):  # noqa: N801
    """The greater of two values (GREATEST, or SQLite's two-argument max)."""

    type = Float()
    inherit_cache = True


class day_of(FunctionElement[str]):  # noqa: N801 - reads as a SQL function
    """The day of a time, in UTC: ``2025-03-01``."""

    type = Text()
    inherit_cache = True


class texts_of(FunctionElement[str]):  # noqa: N801 - reads as a SQL function
    """The texts of a JSON list: any number of values in one parameter."""

    type = Text()
    inherit_cache = True


class texts_with_tokens(FunctionElement[Any]):  # noqa: N801 - reads as a SQL function
    """The rows (place from 0, item, tokens) of a JSON list of [text, number]; for `table_valued`."""

    inherit_cache = True


_written(
    now,
    sqlite="((julianday('now') - 2440587.5) * 86400.0)",
    postgresql="CAST(extract(epoch from clock_timestamp()) AS double precision)",
)
_written(latest, sqlite="max({})", postgresql="greatest({})")
_written(
    day_of,
    sqlite="date({}, 'unixepoch')",
    postgresql="to_char(to_timestamp({}) AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
)
_written(
    texts_of,
    sqlite="(SELECT value FROM json_each({}))",
    postgresql="(SELECT json_array_elements_text(CAST({} AS json)))",
)
_written(
    texts_with_tokens,
    sqlite=(
        "(SELECT key AS place, json_extract(value, '$[0]') AS item, json_extract(value, '$[1]') AS tokens"
        " FROM json_each({}))"
    ),
    postgresql=(
        "(SELECT CAST(n - 1 AS integer) AS place, v ->> 0 AS item, CAST(v ->> 1 AS integer) AS tokens"
        " FROM json_array_elements(CAST({} AS json)) WITH ORDINALITY AS given (v, n))"
    ),
)


def lists(kinds: Mapping[str, TypeEngine[Any]]) -> Any:
    """Return a table whose columns are parameters, lists of equal length; for PostgreSQL alone."""
    columns = [bindparam(name, type_=ARRAY(kind)) for name, kind in kinds.items()]
    return func.unnest(*columns).table_valued(*kinds).render_derived(name="told")


def one_of(column: ColumnElement[Any], words: Iterable[str]) -> ColumnElement[bool]:
    """Return ``column IN (words)`` with the words, constants of ours, in the text: compiled once."""
    return column.in_([literal_column(f"'{word}'") for word in sorted(words)])


@dataclass(frozen=True, eq=False)
class Compiled:
    """Driver text of a statement, with the order of its parameters where they are positional.

    Attributes:
        seals: Names of the parameters that are stored sealed, each with its kind.
        opens: Places of what may be sealed in its rows.
    """

    text: str
    constants: dict[str, Any]
    order: tuple[str, ...] | None
    seals: tuple[tuple[str, str], ...] = ()
    opens: tuple[int, ...] = ()

    def bind(self, params: Params, codec: Codec = PLAIN) -> Any:
        """Return the parameters in the shape the driver wants."""
        if self.seals:
            params = seal_params(params, self.seals, codec)
        if self.order is None:
            return {**self.constants, **params}
        return tuple([params[name] if name in params else self.constants[name] for name in self.order])

    def opened(self, rows: Rows, codec: Codec) -> Rows:
        """Return the rows that the driver gave.

        Raises:
            EncryptionError: The key of a value is not here.
        """
        return open_rows(rows, self.opens, codec) if self.opens and rows else rows


@dataclass(frozen=True, eq=False)
class Statement:
    """A Core statement and its compiled forms."""

    sql: Executable
    _compiled: dict[str, Compiled] = field(default_factory=dict, repr=False)

    def compiled(self, dialect: Dialect) -> Compiled:
        """Return the driver text for `dialect`, compiled on first use."""
        if (found := self._compiled.get(dialect.name)) is None:
            compiled = self.sql.compile(dialect=dialect)  # type: ignore[attr-defined]
            order = tuple(compiled.positiontup) if compiled.positiontup else None
            found = Compiled(
                compiled.string,
                dict(compiled.params),
                order,
                sealed_params(compiled),
                sealed_columns(compiled),
            )
            self._compiled[dialect.name] = found
        return found


@dataclass(frozen=True, eq=False)
class Part:
    """One statement with its parameters.

    Attributes:
        guard: The rest of the unit is not run when this touches no row. Every later statement must carry
            the same condition itself, because a pipeline sends all of them without looking.
    """

    statement: Statement
    params: Params
    guard: bool = True


@dataclass(frozen=True, eq=False)
class Unit:
    """Statements that become true together; the first is the fence or claim.

    Attributes:
        parts: In order. The answer is what the part at `answer` returns.
        fused: The same in fewer statements with data-modifying CTEs, which PostgreSQL has.
            The first of them answers.
        locks: Ids of the run rows written. With more than one, PostgreSQL locks them first, in the one
            order all writers use (root, depth, id), so that guards are exact and nothing deadlocks.
        locks_first: Lock even a single row first: a guard looks at other tables, and a statement that waited
            for a row would look at them as they were before it waited.
        order: Place in a batch: (root or run id, step name).
        topics: Topics whose counters the unit locks, as (project, name): PostgreSQL locks those of a batch in
            one order, after the runs.
        sessions: Sessions whose rows it locks, as (project, session id, agent): likewise, after the topics.
        check: Asked when a unit was repeated after a lost connection and touched nothing: does the row stand
            already as this unit wanted it, by the same worker and attempt? Its rows are the answer then.
    """

    parts: tuple[Part, ...]
    locks: tuple[str, ...]
    fused: tuple[Part, ...] = ()
    order: tuple[str, ...] = ()
    answer: int = 0
    check: Part | None = None
    locks_first: bool = False
    topics: tuple[tuple[str, str], ...] = ()
    sessions: tuple[tuple[str, str, str], ...] = ()

    def for_dialect(self, dialect: Dialect) -> tuple[tuple[Part, ...], int]:
        """Return the parts to run, and which of them answers."""
        if self.fused and dialect.name == "postgresql":
            return self.fused, 0
        return self.parts, self.answer

    def followed_by(self, *parts: Part) -> Unit:
        """Return the unit with more to do, in whichever form it is run."""
        return replace(self, parts=(*self.parts, *parts), fused=(*self.fused, *parts) if self.fused else ())


def opened_answers(
    units: Sequence[Unit], answers: Sequence[Rows], dialect: Dialect, codec: Codec
) -> list[Answer]:
    """Return what committed units answered, opened; an error for the one of which that is not possible.

    All of them are committed: an error of one must not make its neighbours be repeated.
    """
    opened: list[Answer] = []
    for unit, rows in zip(units, answers, strict=True):
        parts, place = unit.for_dialect(dialect)
        try:
            opened.append(parts[place].statement.compiled(dialect).opened(rows, codec))
        except EncryptionError as error:
            opened.append(error)
    return opened


def certain(answers: Iterable[Answer]) -> list[Rows]:
    """Return answers, none of which is an error.

    Raises:
        EncryptionError: One is.
    """
    found: list[Rows] = []
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
        found.append(answer)
    return found
