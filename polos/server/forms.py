"""What a submitted form of the approval page comes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polos import serialization
from polos.forms import ANSWERED_BY, Form

WHOLE = "json"  # name of the one field of a question without fields
Values = Mapping[str, str]  # of a submitted form, by the names of its inputs


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
        data = serialization.parse(values.get(WHOLE, "").strip() or "{}")
    except ValueError as error:
        return {}, {WHOLE: f"This is no JSON: {error}"}
    return _signed(data if isinstance(data, dict) else {"value": data}, values), {}


def _signed(answer: dict[str, Any], values: Values) -> dict[str, Any]:
    by = values.get(ANSWERED_BY, "").strip()
    return {**answer, ANSWERED_BY: by} if by else answer
