"""Data made from JSON schemas, and a model that calls every tool with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from polos.errors import InputError
from polos.models.request import ModelRequest
from polos.testing.answers import ScriptedAnswer, to_answer, tool_call

Schema = Mapping[str, Any]
DEEPEST = 50  # levels of a schema that needs itself
_STRINGS = {
    "date": "2024-01-02",
    "date-time": "2024-01-02T03:04:05Z",
    "duration": "PT1S",
    "email": "ada@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "time": "03:04:05Z",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def call_every_tool(text: str = "Done.") -> Callable[[ModelRequest], ScriptedAnswer]:
    """Return the script of a model that calls every tool it is offered once, and then answers.

    Arguments are made from each tool's schema, and so is the answer where an output schema is wanted; else it
    is `text`. A smoke test: ``runtime(model=call_every_tool())``.
    """

    def script(request: ModelRequest) -> ScriptedAnswer:
        called = {item["name"] for item in request.messages if item.get("type") == "function_call"}
        wanted = [tool for tool in _functions(request) if tool["name"] not in called]
        if wanted:
            calls = [
                tool_call(tool["name"], **sample_of(tool.get("parameters") or {"type": "object"}))
                for tool in wanted
            ]
            return ScriptedAnswer(calls=tuple(calls))
        given = to_answer(text if request.output_schema is None else sample_of(request.output_schema))
        assert isinstance(given, ScriptedAnswer)
        return given

    return script


def _functions(request: ModelRequest) -> Iterator[Mapping[str, Any]]:
    for tool in request.tools:
        if tool.get("type") == "function":
            yield tool


def sample_of(schema: Schema) -> Any:
    """Return the plainest data that a JSON schema admits: what is required, and no more.

    Patterns of strings are not heeded; a schema may give `default`, `examples` or `const` instead.

    Raises:
        InputError: The schema admits nothing, or only what goes on for ever.
    """
    return _Sampler(schema).of(schema, 0)


class _Sampler:
    """Makes data for the parts of one schema."""

    def __init__(self, root: Schema) -> None:
        self._root = root

    def of(self, schema: Any, depth: int) -> Any:
        if depth > DEEPEST:
            raise InputError("No data can be made for a schema that always needs itself")
        if not isinstance(schema, Mapping):  # true
            return {}
        if "$ref" in schema:
            return self.of(self._target(schema["$ref"]), depth + 1)
        if (found := _given(schema)) is not None:
            return found[0]
        if parts := schema.get("allOf"):
            return self.of(self._merged(schema, parts), depth + 1)
        for word in ("anyOf", "oneOf"):
            if choices := schema.get(word):
                return self._first_possible({**schema, word: None}, choices, depth)
        return self._of_type(schema, depth)

    def _target(self, reference: str) -> Any:
        found: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            found = found[part.replace("~1", "/").replace("~0", "~")]
        return found

    def _merged(self, schema: Schema, parts: list[Any]) -> dict[str, Any]:
        merged = {name: value for name, value in schema.items() if name != "allOf"}
        for part in parts:
            whole = self._target(part["$ref"]) if "$ref" in part else part
            properties = {**merged.get("properties", {}), **whole.get("properties", {})}
            required = [*merged.get("required", []), *whole.get("required", [])]
            merged = {**merged, **whole, "properties": properties, "required": required}
        return merged

    def _first_possible(self, schema: Schema, choices: list[Any], depth: int) -> Any:
        problem: InputError | None = None
        for choice in choices:
            try:
                return self.of({**schema, **choice}, depth + 1)
            except InputError as error:  # one that needs itself: another may not
                problem = error
        raise problem or InputError("A schema has an empty list of choices")

    def _of_type(self, schema: Schema, depth: int) -> Any:
        kind = schema.get("type") or ("object" if "properties" in schema else "null")
        match kind[0] if isinstance(kind, list) else kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return _string(schema)
            case "integer":
                return int(_number(schema, 1))
            case "number":
                return _number(schema, 0.5)
            case "boolean":
                return True
            case _:
                return None

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        return {name: self.of(properties.get(name, {}), depth + 1) for name in schema.get("required", [])}

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        first = [self.of(item, depth + 1) for item in schema.get("prefixItems", [])]
        missing = schema.get("minItems", 0) - len(first)
        return [*first, *(self.of(schema.get("items", {}), depth + 1) for _ in range(missing))]


def _given(schema: Schema) -> tuple[Any] | None:
    """Return a value that the schema names itself."""
    if "const" in schema:
        return (schema["const"],)
    for word in ("enum", "examples"):
        if values := schema.get(word):
            return (values[0],)
    return (schema["default"],) if schema.get("default") is not None else None


def _string(schema: Schema) -> str:
    text = _STRINGS.get(schema.get("format", ""), "text")
    text = text.ljust(schema.get("minLength", 0), "x")
    return text[: schema["maxLength"]] if "maxLength" in schema else text


def _number(schema: Schema, step: float) -> float:
    """Return a number within the limits: the least, or the greatest where only that is given."""
    step = schema.get("multipleOf", step)
    low = schema.get("minimum")
    above = schema.get("exclusiveMinimum")
    high = schema.get("maximum")
    below = schema.get("exclusiveMaximum")
    if above is not None:
        return float((math.floor(above / step) + 1) * step)
    if low is not None:
        return float(math.ceil(low / step) * step)
    if below is not None and below <= step:
        return float((math.ceil(below / step) - 1) * step)
    if high is not None and high < step:
        return float(math.floor(high / step) * step)
    return float(step)
