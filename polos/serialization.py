"""Python values to JSON text and back, with the name of the model class a value came from.

One codec for everything that is stored, sent or published. A class named in stored data is looked up among
those this process already has; it is never imported.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import accumulate
from pathlib import PurePath
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from polos.errors import SerializationError, ValueTooLargeError

logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=BaseModel)

# Besides control characters, which json escapes itself: line ends of other standards, and halves of
# surrogate pairs, which are legal in a str but not in UTF-8.
_TO_ESCAPE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")
_LIST_OF = re.compile(r"list\[(.+)\]")
MAX_DEPTH = 200  # of lists and objects in each other: what is stored is read again at any depth of a stack
_LEVELS = {"[": 1, "{": 1, "]": -1, "}": -1}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_UNPREDICTABLE = (TypeError, ValueError, RecursionError)  # what json and model serialisers raise


def to_data(value: object) -> Any:
    """Return `value` as plain JSON data: dicts with string keys, lists, strings, numbers, booleans, None.

    Understands models, dataclasses, dates and times, timedeltas, enums, sets, bytes (base64), UUIDs, Decimals
    (as strings) and paths, at any depth. A plain value comes back equal, not identical.

    Raises:
        SerializationError: Something in it cannot be JSON; the message names its type and where it is.
    """
    return json.loads(dumps(value))


def dumps(value: object, *, limit_bytes: int | None = None, what: str = "value") -> str:
    """Return `value` as compact JSON text that is valid UTF-8, with dict keys in their own order.

    `limit_bytes` is the largest allowed size of the text in UTF-8, of what is to be stored, which may not be
    nested deeper than `MAX_DEPTH` either; `what` tells error messages what the value is, such as ``result of
    step 'charge'``.

    Raises:
        SerializationError: Something in it cannot be JSON; the message names its type and where it is. Or it
            is nested too deeply.
        ValueTooLargeError: The text is longer than `limit_bytes`.
    """
    try:
        text = _encode(value)
    except _UNPREDICTABLE as error:
        raise SerializationError(f"cannot store {what} as JSON: {_find_problem(value) or error}") from error
    if not text.isascii() or "\x7f" in text:
        text = _TO_ESCAPE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    if limit_bytes is not None:
        _check_size(text, limit_bytes=limit_bytes, what=what)
        if is_too_deep(text):
            raise SerializationError(
                f"cannot store {what}: it is nested deeper than the {MAX_DEPTH} levels that are allowed"
            )
    return text


def loads(text: str | bytes) -> Any:
    """Return the data of JSON `text`."""
    return json.loads(text)


def parse(text: str | bytes) -> Any:
    """Return the data of JSON text that somebody else wrote; of equal keys the last one counts.

    Raises:
        ValueError: It is none, or holds what no value here may: NaN, infinities, numbers of thousands of
            digits, more than `MAX_DEPTH` levels.
    """
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"it is nested deeper than the {MAX_DEPTH} levels that are allowed") from None
    if is_too_deep(text if isinstance(text, str) else text.decode()):
        raise ValueError(f"it is nested deeper than the {MAX_DEPTH} levels that are allowed")
    return data


def is_too_deep(text: str) -> bool:
    """Return whether JSON `text` has lists and objects in each other beyond `MAX_DEPTH`."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    brackets = (_LEVELS[one] for one in _STRING.sub("", text) if one in _LEVELS)
    return max(accumulate(brackets)) > MAX_DEPTH


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def is_storable(text: str) -> bool:
    """Return whether every database can hold `text` as it is: no NUL, no half of a surrogate pair."""
    return _NOT_STORABLE.search(text) is None


def _encode(value: object) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _check_size(text: str, *, limit_bytes: int, what: str) -> None:
    size = len(text) if text.isascii() else len(text.encode())
    if size > limit_bytes:
        raise ValueTooLargeError(
            f"{what} is {size} bytes as JSON, {limit_bytes} are allowed: keep large data elsewhere and pass "
            "a reference to it, or raise POLOS_MAX_VALUE_BYTES"
        )


def _plain(value: object) -> object:
    """Return `value` one step closer to JSON; what it holds is converted in its turn."""
    match value:
        case BaseModel():
            return value.model_dump(mode="json")
        case Enum():
            return value.value
        case set() | frozenset():
            return _in_order(value)
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode("ascii")
        case datetime() | date() | time() | timedelta() | UUID() | Decimal():
            return to_jsonable_python(value)
        case PurePath():
            return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{_type_name(value)} is not JSON")


def _in_order(members: set[Any] | frozenset[Any]) -> list[Any]:
    """Return `members` in an order that is the same in every process."""
    try:
        return sorted(members)
    except TypeError:
        return sorted(members, key=_encode)


# -- naming the culprit, only after an encoding failed


def _find_problem(value: object) -> str | None:
    try:
        return _problem(value, "", ())
    except RecursionError:
        return "it is nested too deeply"


def _problem(value: object, path: str, parents: tuple[int, ...]) -> str | None:
    """Return what is wrong with `value` or with the first bad thing inside it, or None."""
    where = f" at {path}" if path else ""
    if id(value) in parents:
        return f"a {_type_name(value)} that contains itself{where}"
    if isinstance(value, dict) and (bad_keys := [key for key in value if not _is_json_key(key)]):
        return f"a dict key {bad_keys[0]!r} of type {_type_name(bad_keys[0])}{where}"
    for step, child in _children(value):
        if found := _problem(child, path + step, (*parents, id(value))):
            return found
    try:
        _encode(value)
    except _UNPREDICTABLE as error:
        return _describe(value, error) + where
    return None


def _children(value: object) -> Iterator[tuple[str, object]]:
    match value:
        case dict():
            yield from ((f"[{key!r}]", child) for key, child in value.items())
        case list() | tuple():
            yield from ((f"[{index}]", child) for index, child in enumerate(value))
        case set() | frozenset():
            yield from (("{}", child) for child in value)
        case BaseModel():
            yield from ((f".{name}", child) for name, child in value)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from ((f".{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value))


def _is_json_key(key: object) -> bool:
    return key is None or isinstance(key, str | int | float)


def _describe(value: object, error: Exception) -> str:
    if isinstance(value, float):
        return f"the number {value!r}"
    if isinstance(value, BaseModel):
        return f"a {_type_name(value)} ({error})"
    return f"a value of type {_type_name(value)}"


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else class_name(kind)


# -- models by name


def schema_name(value: object) -> str | None:
    """Return ``module.Class`` of a model, ``list[module.Class]`` of a list of one model class, else None."""
    if isinstance(value, BaseModel):
        return class_name(type(value))
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        kinds = {type(member) for member in value}
        return f"list[{class_name(kinds.pop())}]" if len(kinds) == 1 else None
    return None


def rebuild(data: Any, schema: str | None, *, known: Iterable[type[BaseModel]] = ()) -> Any:
    """Return `data` as the model, or list of models, that `schema_name` named; plain data when that fails.

    Never raises: a class this process does not have, or data that no longer fits it, is logged. Classes in
    `known` are considered before those of imported modules; local classes are only found there.
    """
    if schema is None or data is None:
        return data
    many = _LIST_OF.fullmatch(schema)
    model = find_model(many[1] if many else schema, known)
    if model is None:
        logger.warning("class %s is not available in this process; its data is returned as it is", schema)
        return data
    try:
        return [validate(model, member) for member in data] if many else validate(model, data)
    except (ValidationError, TypeError) as error:
        logger.warning("stored data does not fit %s; it is returned as it is: %s", schema, error)
        return data


def validate(model: type[ModelT], data: Any) -> ModelT:
    """Return JSON `data` as a `model`, by field name or alias.

    Validates as JSON, not as Python values, so that what a model wrote (bytes, dates of a strict model) is
    read back the same way.

    Raises:
        ValidationError: The data does not fit.
    """
    if isinstance(data, dict):  # computed fields are written but never read
        data = {key: item for key, item in data.items() if key not in model.model_computed_fields}
    return model.model_validate_json(dumps(data), by_alias=True, by_name=True)


def class_name(kind: type) -> str:
    """Return ``module.Class``, the name under which a class is stored."""
    return f"{kind.__module__}.{kind.__qualname__}"


def find_model(name: str, known: Iterable[type[BaseModel]] = ()) -> type[BaseModel] | None:
    """Return the model class stored as `name`: one of `known`, or of a module imported already, or None."""
    for model in known:
        if class_name(model) == name:
            return model
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        if module := _imported_module(".".join(parts[:split])):
            return _model_in(module, parts[split:])
    return None


def _imported_module(name: str) -> ModuleType | None:
    if module := sys.modules.get(name):
        return module
    # A worker imported the program as a module; here the same program is the script being run.
    main = sys.modules.get("__main__")
    return main if main is not None and name == _import_name(main) else None


def _import_name(main: ModuleType) -> str | None:
    if spec := getattr(main, "__spec__", None):
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return PurePath(file).stem if file else None


def _model_in(module: ModuleType, path: list[str]) -> type[BaseModel] | None:
    found: object = module
    for name in path:
        found = vars(found).get(name) if isinstance(found, ModuleType | type) else None
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


# -- the names existing programs import


def serialize(value: object) -> Any:
    """Return `value` as plain JSON data, as `to_data` does; a `SerializationError` is a TypeError."""
    return to_data(value)


def json_serialize(value: object) -> str:
    """Return `value` as JSON text, as `dumps` does."""
    return dumps(value)


def deserialize(data: Any, schema: str | None = None) -> Any:
    """Return JSON text, or data already parsed, as plain data or as the model `schema` names."""
    return rebuild(loads(data) if isinstance(data, str | bytes) else data, schema)


def is_json_serializable(value: object) -> bool:
    """Return whether `to_data` accepts `value`."""
    try:
        dumps(value)
    except SerializationError:
        return False
    return True


def safe_serialize(value: object) -> Any:
    """Return `value` as JSON data for people to read; what cannot be JSON becomes ``<its name>``."""
    try:
        return to_data(value)
    except SerializationError:
        return _with_placeholders(value, ())


def _with_placeholders(value: object, parents: tuple[int, ...]) -> Any:
    if id(value) in parents or len(parents) > 20:
        return "<...>"
    inside = (*parents, id(value))
    if isinstance(value, dict):
        return {_readable_key(key): _with_placeholders(item, inside) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_with_placeholders(item, inside) for item in value]
    return to_data(value) if is_json_serializable(value) else f"<{_readable_name(value)}>"


def _readable_key(key: object) -> str:
    if isinstance(key, str):
        return key
    return json.dumps(key) if _is_json_key(key) else f"<{_readable_name(key)}>"


def _readable_name(value: object) -> str:
    if isinstance(value, float):
        return repr(value)
    return value.__name__ if isinstance(value, type | FunctionType | MethodType) else type(value).__name__
