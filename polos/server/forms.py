"""Forms of questions: what a page asks for, and the answer that a submitted form comes to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TYPES = frozenset({"text", "textarea", "number", "boolean", "select"})
WHOLE = "json"  # name of the one field of a question without fields
ANSWERED_BY = "_answered_by"
Values = Mapping[str, str]  # of a submitted form, by the names of its inputs


@dataclass(frozen=True)
class Field:
    """One input. `input` is its name on the page, `shown` what it begins with."""

    key: str
    input: str
    type: str
    label: str
    description: str
    required: bool
    options: tuple[tuple[str, Any], ...]
    shown: str

    def value(self, given: str | None) -> Any:
        """Return what was entered, None for nothing.

        Raises:
            ValueError: It does not fit; the message is for whoever fills the form in.
        """
        if self.type == "boolean":
            return given is not None
        text = (given or "").replace("\r\n", "\n")
        if not text.strip():
            if self.required:
                raise ValueError("Please fill this in.")
            return None
        if self.type == "number":
            return _number(text)
        if self.type == "select":
            return _chosen(text, self.options)
        return text


@dataclass(frozen=True)
class Form:
    """What a page shows of a question, and asks for. Without fields it asks for any JSON."""

    title: str
    description: str
    context: tuple[tuple[str, str], ...]
    fields: tuple[Field, ...]


def form_of(question: Any, step_key: str) -> Form:
    """Return the form of a question, whatever its ``_form`` looks like."""
    asked = question if isinstance(question, Mapping) else {}
    given = asked.get("_form")
    form = given if isinstance(given, Mapping) else {}
    rest = {key: value for key, value in asked.items() if not key.startswith("_")}
    context = form.get("context")
    return Form(
        title=_text(form.get("title") or asked.get("title") or step_key),
        description=_text(form.get("description") or ""),
        context=_context(context if context is not None else rest),
        fields=_fields(form.get("fields")),
    )


def answer_of(form: Form, values: Values) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the answer that submitted values come to, and what is wrong, by the names of inputs."""
    if not form.fields:
        return _whole(values)
    answer: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for field in form.fields:
        try:
            answer[field.key] = field.value(values.get(field.input))
        except ValueError as error:
            problems[field.input] = str(error)
    return _signed(answer, values), problems


def _whole(values: Values) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        data = json.loads(values.get(WHOLE, "").strip() or "{}", parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return {}, {WHOLE: f"This is no JSON: {error}"}
    return _signed(data if isinstance(data, dict) else {"value": data}, values), {}


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _signed(answer: dict[str, Any], values: Values) -> dict[str, Any]:
    by = values.get(ANSWERED_BY, "").strip()
    return {**answer, ANSWERED_BY: by} if by else answer


def _fields(given: Any) -> tuple[Field, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        return ()
    known = [field for field in given if isinstance(field, Mapping) and _key(field)]
    return tuple(_field(place, field) for place, field in enumerate(known))


def _key(field: Mapping[str, Any]) -> str:
    return _text(field.get("key") or field.get("name") or "")


def _field(place: int, given: Mapping[str, Any]) -> Field:
    key, kind = _key(given), given.get("type")
    options = tuple(_options(given.get("options")))
    kind = kind if kind in TYPES else ("select" if options else "text")
    return Field(
        key=key,
        input=f"field-{place}",  # keys may be any text
        type=kind,
        label=_text(given.get("label") or key),
        description=_text(given.get("description") or ""),
        required=given.get("required") is True,
        options=options,
        shown=_shown(kind, given.get("default"), options),
    )


def _options(given: Any) -> list[tuple[str, Any]]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        return []
    return [
        (_text(one.get("label") or one.get("value")), one.get("value"))
        if isinstance(one, Mapping)
        else (_text(one), one)
        for one in given
    ]


def _shown(kind: str, default: Any, options: tuple[tuple[str, Any], ...]) -> str:
    if kind == "boolean":
        return "on" if default is True else ""
    if kind == "select":
        return next((str(place) for place, (_, value) in enumerate(options) if value == default), "")
    return "" if default is None else _text(default)


def _chosen(text: str, options: tuple[tuple[str, Any], ...]) -> Any:
    if text.isascii() and text.isdigit() and int(text) < len(options):
        return options[int(text)][1]
    raise ValueError("Please choose one of these.")


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        number = float(text.replace(",", ".")) if _may_be_number(text) else math.nan
    if not math.isfinite(number):
        raise ValueError("Please enter a number.")
    return number


def _may_be_number(text: str) -> bool:
    return text.strip().lstrip("+-").replace(",", ".").replace(".", "", 1).replace("e", "", 1).isdigit()


def _context(given: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(given, Mapping):
        return tuple((_text(key), _text(value)) for key, value in given.items())
    return () if given in (None, "", []) else (("", _text(given)),)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
