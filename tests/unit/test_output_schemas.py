"""The schema a model is held to, and what is made of its answer."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel, Field

from polos import Agent
from polos.agents.structured import parse_output, repair_request, schema_of
from polos.errors import OutputError


class Genre(str, Enum):  # noqa: UP042 - as users write it
    DRAMA = "drama"


class Person(BaseModel):
    name: str
    born: int | None = None


class Review(BaseModel):
    title: str = Field(description="Of the film")
    rating: int = Field(ge=1, le=10)
    genre: Genre = Genre.DRAMA
    director: Person = Field(description="Who made it")
    cast: list[Person] = []


class Node(BaseModel):
    value: int
    children: list[Node] = []


def test_references_are_written_out_and_objects_are_closed() -> None:
    schema = schema_of(Review)
    assert "$defs" not in json.dumps(schema)
    assert schema["required"] == ["title", "rating", "genre", "director", "cast"]
    assert schema["additionalProperties"] is False
    director = schema["properties"]["director"]
    assert (director["description"], director["required"]) == ("Who made it", ["name", "born"])
    assert schema["properties"]["cast"]["items"]["additionalProperties"] is False
    assert schema["properties"]["genre"]["enum"] == ["drama"]


def test_the_schema_is_the_same_in_every_process() -> None:
    assert json.dumps(schema_of(Review)) == json.dumps(schema_of(Review))


def test_a_class_that_contains_itself_keeps_its_definition() -> None:
    schema = schema_of(Node)
    assert list(schema["$defs"]) == ["Node"]
    assert schema["$defs"]["Node"]["required"] == ["value", "children"]
    assert "#/$defs/Node" in json.dumps(schema)


GOOD = '{"name": "Ada", "born": 1815}'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"  {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"Here it is:\n```\n{GOOD}\n```\nAnything else?",
        f"Sure! {GOOD} I hope that helps.",
    ],
)
def test_json_is_found_whatever_stands_around_it(text: str) -> None:
    assert parse_output(text, Person) == Person(name="Ada", born=1815)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the answer is empty"),
        (None, "the answer is empty"),
        ("no JSON at all", "Invalid JSON"),
        ('{"born": 1}', "name: Field required"),
        ('{"name": "Ada", "born": "long ago"}', "born: Input should be a valid integer"),
    ],
)
def test_what_does_not_fit_is_said(text: str | None, problem: str) -> None:
    with pytest.raises(OutputError, match=problem):
        parse_output(text, Person)


def test_the_model_is_told_what_is_wrong_and_what_is_wanted() -> None:
    [item] = repair_request("name: Field required", Person)
    assert "name: Field required" in item["content"]
    assert '"additionalProperties": false' in item["content"]


class Bare(BaseModel):
    maybe: int | None


class Holder(BaseModel):
    inner: Bare | None = None


@pytest.mark.parametrize(("schema", "field"), [(Bare, "Bare.maybe"), (Holder, "Bare.maybe")])
def test_optional_fields_need_a_default(schema: type[BaseModel], field: str) -> None:
    if schema is Holder:
        assert (
            Agent(id="o", provider="openai", model="m", output_schema=Person).result_output_schema is Person
        )
    with pytest.raises(ValueError, match=f"need a default.*{field}"):
        Agent(id="optional", provider="openai", model="m", output_schema=schema)


@pytest.mark.parametrize("wrong", [dict, Person(name="x"), "Person", {"type": "object"}])
def test_the_schema_is_a_model_class(wrong: Any) -> None:
    with pytest.raises(TypeError, match="must be a Pydantic model class"):
        Agent(id="wrong", provider="openai", model="m", output_schema=wrong)


@pytest.mark.parametrize("name", ["output_retries", "guardrail_max_retries"])
@pytest.mark.parametrize("wrong", [-1, "2", True, 1.5])
def test_retries_are_counted(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
        Agent(id="wrong", provider="openai", model="m", **{name: wrong})
