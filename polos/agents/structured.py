"""Structured output: the JSON schema a model is held to, and its answer as the class of the user."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from types import NoneType
from typing import Any

from pydantic import BaseModel, ValidationError

from polos.errors import OutputError
from polos.functions import is_model, members
from polos.inputs import problems
from polos.models.request import Item

_FENCED = re.compile(r"```[\w-]*\s*\n(.*?)```", re.DOTALL)


def check_output_schema(agent_id: str, model: Any) -> type[BaseModel] | None:
    """Return the class of an agent's answers.

    Raises:
        TypeError: It is no Pydantic model class.
        ValueError: A field may be None but has no default: a model that leaves it out would always fail.
    """
    if model is None:
        return None
    if not is_model(model):
        raise TypeError(f"Agent {agent_id!r}: output_schema must be a Pydantic model class, not {model!r}")
    if missing := list(_without_default(model, set())):
        raise ValueError(
            f"Agent {agent_id!r}: optional fields of output_schema need a default, such as None: {missing}"
        )
    schema_of(model)
    found: type[BaseModel] = model
    return found


def _without_default(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[str]:
    if model in seen:
        return
    seen.add(model)
    for name, field in model.model_fields.items():
        kinds = members(field.annotation)
        if field.is_required() and any(kind in (None, NoneType) for kind in kinds):
            yield f"{model.__name__}.{name}"
        for kind in kinds:
            if is_model(kind):
                yield from _without_default(kind, seen)


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a class in the strict form that providers take.

    References are written out, every object names all its properties as required, in the order of their
    definition, and allows no others. Classes that contain themselves stay under ``$defs``.
    """
    schema = copy.deepcopy(model.model_json_schema())
    definitions = schema.pop("$defs", {})
    recursive = {name for name in definitions if _reaches(name, name, definitions)}
    strict: dict[str, Any] = _strict(schema, definitions, recursive)
    if recursive:
        kept = {name: _strict(definitions[name], definitions, recursive) for name in definitions}
        strict["$defs"] = {name: kept[name] for name in definitions if name in recursive}
    return strict


def _reaches(name: str, target: str, definitions: dict[str, Any], seen: frozenset[str] = frozenset()) -> bool:
    below = set(_references(definitions[name])) - seen
    return target in below or any(_reaches(one, target, definitions, seen | below) for one in below)


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(reference := node.get("$ref"), str):
            yield reference.rpartition("/")[2]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _strict(node: Any, definitions: dict[str, Any], recursive: set[str]) -> Any:
    if isinstance(node, list):
        return [_strict(member, definitions, recursive) for member in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str) and (name := reference.rpartition("/")[2]) not in recursive:
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return _strict({**definitions[name], **beside}, definitions, recursive)
    strict = {key: _strict(value, definitions, recursive) for key, value in node.items()}
    if isinstance(properties := strict.get("properties"), dict):
        strict["required"] = list(properties)
        strict["additionalProperties"] = False
    return strict


def parse_output(content: Any, model: type[BaseModel]) -> BaseModel:
    """Return a model's answer as an instance of the class, whatever stands around the JSON in it.

    Raises:
        OutputError: There is no JSON in it, or it does not fit; the message says what is wrong.
    """
    text = content if isinstance(content, str) else "" if content is None else json.dumps(content)
    problem: str | None = None
    for candidate in _candidates(text):
        try:
            return model.model_validate_json(candidate)
        except ValidationError as error:
            problem = problem or _problem(error)
    raise OutputError(problem or "the answer is empty")


def _candidates(text: str) -> Iterator[str]:
    """Give what may be the JSON of an answer: all of it, what is fenced off, what is between braces."""
    if text.strip():
        yield text.strip()
    yield from (block.strip() for block in reversed(_FENCED.findall(text)))
    for opening, closing in ("{}", "[]"):
        begin, end = text.find(opening), text.rfind(closing)
        if 0 <= begin < end:
            yield text[begin : end + 1]


def _problem(error: ValidationError) -> str:
    return f"the answer does not fit: {problems(error)}"


def repair_request(problem: str, model: type[BaseModel]) -> list[Item]:
    """Return what tells a model that its answer was of no use, and what is wanted instead."""
    schema = json.dumps(schema_of(model), ensure_ascii=False)
    text = (
        f"Your answer cannot be used: {problem}. Answer again with a single JSON value that matches this "
        f"JSON schema, and nothing else:\n{schema}"
    )
    return [{"role": "user", "content": text}]
