"""Which values of statements are sealed: a type says it, of columns, and so of the parameters meant for them.

Statements stay as they are. Compiled, each knows its sealed parameters and result columns; connections seal
and open them there. SQL only moves sealed values about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.compiler import SQLCompiler

from polos.encryption import PREFIX, Codec, sealed_texts

Row = tuple[Any, ...]
TEXT, TEXTS, LIST = "text", "texts", "list"


class Sealed(Text):
    """The type of a column whose texts may be encrypted."""


class SealedTexts(Text):
    """The type of a parameter that is a JSON list of [text, number], whose texts go into such columns."""


def sealed_params(compiled: SQLCompiler) -> tuple[tuple[str, str], ...]:
    """Return names of the parameters of a statement that are sealed, each with its kind."""
    found = ((name, _kind(bind.type)) for name, bind in compiled.binds.items())
    return tuple((name, kind) for name, kind in found if kind is not None)


def _kind(of: Any) -> str | None:
    if isinstance(of, ARRAY):
        return LIST if type(of.item_type) is Sealed else None
    return {Sealed: TEXT, SealedTexts: TEXTS}.get(type(of))


def sealed_columns(compiled: SQLCompiler) -> tuple[int, ...]:
    """Return places of the columns of a statement's rows that may be sealed."""
    return tuple(
        place for place, column in enumerate(compiled._result_columns) if isinstance(column.type, Sealed)
    )


def seal_params(
    params: Mapping[str, Any], sealed: Sequence[tuple[str, str]], codec: Codec
) -> Mapping[str, Any]:
    """Return parameters with those sealed that have to be."""
    changed = dict(params)
    for name, kind in sealed:
        if (value := changed.get(name)) is not None:
            changed[name] = _sealed(value, kind, codec)
    return changed


def _sealed(value: Any, kind: str, codec: Codec) -> Any:
    if kind == TEXT:
        return codec.seal(value)
    if kind == TEXTS:
        return sealed_texts(value, codec)
    return [None if text is None else codec.seal(text) for text in value]


def open_rows(rows: Sequence[Row], columns: Sequence[int], codec: Codec) -> list[Row]:
    """Return rows with their sealed values opened.

    Raises:
        EncryptionError: The key of one is not here.
    """
    return [_opened(row, columns, codec) for row in rows]


def _opened(row: Row, columns: Sequence[int], codec: Codec) -> Row:
    values: list[Any] | None = None
    for place in columns:
        if (value := row[place]) is not None and value.startswith(PREFIX):
            values = values or list(row)
            values[place] = codec.open(value)
    return row if values is None else tuple(values)
