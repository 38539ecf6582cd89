"""JSON schemas in the dialects of providers, each of which takes another part of the standard.

A constraint that a provider does not know moves into the description, where the model can read it; the answer
is checked against the whole schema later, so nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

# Said to the model in words where a dialect lacks them.
_LABELS: Mapping[str, str] = {
    "format": "format: {}",
    "pattern": "pattern: {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "uniqueItems": "no item twice",
    "contains": "holds an item like {}",
    "minContains": "at least {} such items",
    "maxContains": "at most {} such items",
    "minProperties": "at least {} properties",
    "maxProperties": "at most {} properties",
    "patternProperties": "properties whose names match: {}",
    "propertyNames": "names of properties: {}",
    "dependentRequired": "properties that need others: {}",
    "dependentSchemas": "properties that need: {}",
    "unevaluatedProperties": "other properties: {}",
    "if": "if: {}",
    "then": "then: {}",
    "else": "else: {}",
    "not": "not: {}",
}
# What says nothing about the answer; most providers refuse some of it.
_SILENT = frozenset(
    ("default", "discriminator", "examples", "example", "deprecated", "readOnly", "writeOnly")
)
_MAPS_OF_SCHEMAS = ("properties", "$defs")
_LISTS_OF_SCHEMAS = ("anyOf", "allOf", "prefixItems")

_NUMBERS = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"))
_LENGTHS = frozenset(("minLength", "maxLength"))
_ITEMS = frozenset(("minItems", "maxItems"))
_ODD = frozenset(_LABELS) - _NUMBERS - _LENGTHS - _ITEMS - {"format", "pattern"}
_TIMES = frozenset(("date-time", "date", "time"))
_FORMATS = _TIMES | {"duration", "email", "hostname", "ipv4", "ipv6", "uuid"}


@dataclass(frozen=True)
class Dialect:
    """What of JSON schema a provider takes.

    Attributes:
        without: Constraints it refuses.
        formats: Of strings, None for all.
        open_objects: Whether objects may have properties that are not named.
        recursion: Whether a schema may contain itself.
        any_root: Whether the whole may be something else than an object.
        constants: Whether it knows ``const``.
    """

    without: frozenset[str] = _ODD
    formats: frozenset[str] | None = None
    open_objects: bool = False
    recursion: bool = True
    any_root: bool = False
    constants: bool = True


OPENAI = Dialect(without=_ODD | _LENGTHS, formats=_FORMATS)
ANTHROPIC = Dialect(
    without=_ODD | _LENGTHS | _NUMBERS | _ITEMS, formats=_FORMATS | {"uri"}, recursion=False, any_root=True
)
GEMINI = Dialect(
    without=_ODD | _LENGTHS | {"pattern", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    formats=_TIMES,
    open_objects=True,
    recursion=False,
    any_root=True,
    constants=False,
)
GRAMMAR = Dialect(open_objects=True, any_root=True)
"""Servers of open models, which compile the schema into a grammar."""


def adapted(schema: Schema, dialect: Dialect) -> Schema | None:
    """Return `schema` as `dialect` takes it, None where that cannot be."""
    if not dialect.any_root and schema.get("type") != "object":
        return None
    if not dialect.recursion and any("$ref" in node for node in _nodes(schema)):
        return None
    if not dialect.open_objects and any(_is_open(node) for node in _nodes(schema)):
        return None
    found: Schema = _adapted(schema, dialect)
    return found


def _nodes(value: Any) -> Iterator[Schema]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _is_open(node: Schema) -> bool:
    return node.get("type") == "object" and node.get("additionalProperties") is not False


def _adapted(node: Any, dialect: Dialect) -> Any:
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return {"$ref": node["$ref"]}  # nothing may stand beside a reference
    kept: Schema = {}
    notes: list[str] = []
    for key, value in node.items():
        if key in _LABELS and not _takes(dialect, key, value):
            notes += _note(key, value)
        elif key not in _SILENT:
            _keep(kept, key, value, dialect)
    if notes:
        described = kept.get("description")
        kept["description"] = " ".join([*([described] if described else []), f"({'; '.join(notes)})"])
    return kept


def _takes(dialect: Dialect, key: str, value: Any) -> bool:
    if key == "format":
        return dialect.formats is None or value in dialect.formats
    if key == "minItems" and value in (0, 1):
        return True
    return key not in dialect.without


def _note(key: str, value: Any) -> list[str]:
    if isinstance(value, bool) and not value:
        return []
    return [_LABELS[key].format(json.dumps(value) if isinstance(value, dict | list) else value)]


def _keep(kept: Schema, key: str, value: Any, dialect: Dialect) -> None:
    if key in _MAPS_OF_SCHEMAS and isinstance(value, dict):
        kept[key] = {name: _adapted(inner, dialect) for name, inner in value.items()}
    elif key == "oneOf":
        kept["anyOf"] = [*kept.get("anyOf", ()), *(_adapted(inner, dialect) for inner in value)]
    elif key in _LISTS_OF_SCHEMAS and isinstance(value, list):
        kept[key] = [*kept.get(key, ()), *(_adapted(inner, dialect) for inner in value)]
    elif key == "const" and not dialect.constants:
        kept["enum"] = [value]
    elif key in ("items", "additionalProperties"):
        kept[key] = _adapted(value, dialect)
    else:
        kept[key] = value
