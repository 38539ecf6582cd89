"""Forms of questions: which fields an answer has, and what is wrong with one that does not fit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polos.errors import AnswerError

TYPES = frozenset({"text", "textarea", "number", "boolean", "select"})
ANSWERED_BY = "_answered_by"  # key of an answer: who gave it
APPROVALS = frozenset({"tool_approval", "exec_security", "path_approval"})  # sources of yes-or-no questions
_BOOLEANS = {
    **dict.fromkeys(("true", "on", "yes", "1"), True),
    **dict.fromkeys(("false", "off", "no", "0", ""), False),
}


@dataclass(frozen=True)
class Field:
    """One input. `input` is its name on the page, `shown` what it begins with there.

    Attributes:
        name: Another key that an answer may have it under.
        options: Pairs of label and value.
        default: What it is where an answer leaves it out; None for nothing.
    """

    key: str
    name: str
    input: str
    type: str
    label: str
    description: str
    required: bool
    options: tuple[tuple[str, Any], ...]
    default: Any
    shown: str

    def value(self, given: str | None) -> Any:
        """Return what was entered on the page, None for nothing.

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

    def read(self, given: Any) -> Any:
        """Return a value of an answer in the field's type; texts, as HTML forms send them, are read.

        Raises:
            ValueError: It does not fit; the message says what would.
        """
        match self.type:
            case "boolean":
                return _boolean(given)
            case "number":
                return _numeric(given)
            case "select" if self.options:
                return _option(given, self.options)
            case _ if isinstance(given, Mapping | Sequence) and not isinstance(given, str):
                raise ValueError(f"takes text, not {type(given).__name__}")
        return given


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


def checked_answer(question: Any, step_key: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer as the form of its question has it: each field under its key, in its type.

    Fields left out get their defaults; what the form does not know stays as it is. Whether to approve is
    never in doubt: there, what is no boolean is left as it is, and approves nothing.

    Raises:
        AnswerError: A field is missing or does not fit; the message names it.
    """
    is_lenient = isinstance(question, Mapping) and question.get("_source") in APPROVALS
    checked = dict(answer)
    for field in form_of(question, step_key).fields:
        given = answer.get(field.key, answer.get(field.name, field.default))
        if given is None or (given == "" and field.type != "boolean"):
            if field.required and not is_lenient:
                raise AnswerError(f"The answer to {step_key!r} lacks {_named(field)}, which is required")
            continue
        try:
            checked[field.key] = field.read(given)
        except ValueError as error:
            if not is_lenient:
                raise AnswerError(f"The answer to {step_key!r} has {_named(field)} that {error}") from error
    return checked


def _named(field: Field) -> str:
    return f"a field {field.key!r} ({field.label})" if field.label != field.key else f"a field {field.key!r}"


def _boolean(given: Any) -> bool:
    if isinstance(given, bool):
        return given
    found = _BOOLEANS.get(given.strip().lower()) if isinstance(given, str) else None
    if found is None:
        raise ValueError(f"takes true or false, not {given!r}")
    return found


def _numeric(given: Any) -> int | float:
    if isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given):
        return given
    try:
        return _number(given if isinstance(given, str) else "")
    except ValueError as error:
        raise ValueError(f"takes a number, not {given!r}") from error


def _option(given: Any, options: tuple[tuple[str, Any], ...]) -> Any:
    for label, value in options:
        if given == value or (isinstance(given, str) and given in {label, str(value)}):
            return value
    raise ValueError(f"takes one of {[value for _, value in options]}, not {given!r}")


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
        name=_text(given.get("name") or key),
        input=f"field-{place}",  # keys may be any text
        type=kind,
        label=_text(given.get("label") or key),
        description=_text(given.get("description") or ""),
        required=given.get("required") is True,
        options=options,
        default=given.get("default"),
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
