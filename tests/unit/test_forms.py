from typing import Any

import pytest

from polos.errors import AnswerError
from polos.forms import checked_answer


def checked(answer: dict[str, Any], *fields: dict[str, Any], source: str | None = None) -> dict[str, Any]:
    return checked_answer({"_form": {"fields": list(fields)}, "_source": source}, "key", answer)


@pytest.mark.parametrize("question", [None, "text", {}, {"_form": None}, {"_form": {"fields": "none"}}])
def test_without_fields_any_answer_fits(question: Any) -> None:
    assert checked_answer(question, "key", {"a": [1]}) == {"a": [1]}


def test_an_answer_may_use_either_name_of_a_field() -> None:
    field = {"key": "a", "name": "b", "type": "number", "required": True}
    assert checked({"b": "2"}, field)["a"] == 2
    assert checked({"a": 1, "b": 2}, field)["a"] == 1


def test_what_is_left_out_gets_its_default() -> None:
    field = {"key": "a", "type": "boolean", "required": True, "default": False}
    assert checked({}, field) == {"a": False}


@pytest.mark.parametrize(
    ("kind", "given", "read"),
    [
        ("boolean", "TRUE", True),
        ("boolean", " off ", False),
        ("boolean", "", False),
        ("number", "2,5", 2.5),
        ("number", "-3", -3),
        ("number", 1e3, 1000.0),
        ("text", 5, 5),
        ("textarea", "a\nb", "a\nb"),
    ],
)
def test_texts_are_read_by_the_type_of_their_field(kind: str, given: Any, read: Any) -> None:
    assert checked({"a": given}, {"key": "a", "type": kind}) == {"a": read}


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("boolean", "maybe"),
        ("boolean", 1),
        ("number", "1e999"),
        ("number", float("nan")),
        ("number", [1]),
        ("text", {"b": 1}),
        ("textarea", ["a"]),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_its_field(kind: str, given: Any) -> None:
    with pytest.raises(AnswerError, match=r"answer to 'key' has a field 'a' \(Label\) that takes"):
        checked({"a": given}, {"key": "a", "type": kind, "label": "Label"})


def test_an_option_is_given_by_value_or_label() -> None:
    field = {"key": "a", "type": "select", "options": [{"label": "High", "value": 2}, {"value": None}]}
    assert [checked({"a": given}, field)["a"] for given in (2, "2", "High")] == [2, 2, 2]
    with pytest.raises(AnswerError, match="takes one of"):
        checked({"a": "Low"}, field)


def test_an_approval_is_never_in_doubt() -> None:
    field = {"key": "approved", "type": "boolean", "required": True}
    for given in ("maybe", 1, None, [True]):
        assert checked({"approved": given}, field, source="tool_approval")["approved"] is not True
    assert checked({"approved": "true"}, field, source="tool_approval") == {"approved": True}
