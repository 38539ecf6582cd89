"""A tool by which a model asks the person it works for, with a form."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from polos.errors import StepExecutionError
from polos.functions import check_seconds
from polos.tools.tool import Tool

DEFAULT_TITLE = "The assistant has a question"
DESCRIPTION = (
    "Ask the user something that you cannot find out yourself, and wait for the answer. Give fields to ask "
    "for several things at once, or for one of some options; without fields the user answers in text."
)


class AskUserFieldOption(BaseModel):
    """A choice of a `select` field."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    label: str = Field(description="What the user sees")
    value: str = Field(description="What the answer has")


class AskUserField(BaseModel):
    """One thing that is asked."""

    key: str = Field(min_length=1, max_length=100, description="Name of the value in the answer")
    type: Literal["text", "textarea", "number", "boolean", "select"] = "text"
    label: str = Field(description="What the user sees")
    description: str | None = Field(None, description="Help for the user")
    required: bool | None = Field(None, description="Whether it must be filled in")
    options: list[AskUserFieldOption] | None = Field(None, description="Choices, for type select only")

    @model_validator(mode="after")
    def _has_options_to_select(self) -> Self:
        if self.type == "select" and not self.options:
            raise ValueError(f"field {self.key!r} is a select without options: give some, or another type")
        if self.key.startswith("_"):
            raise ValueError(f"field {self.key!r}: keys must not begin with an underscore")
        return self


class AskUserInput(BaseModel):
    """What the model asks."""

    question: str = Field(min_length=1, description="The question, in full")
    title: str | None = Field(None, description="A short title")
    fields: list[AskUserField] | None = Field(None, description="What to ask for; by default one text")

    @model_validator(mode="after")
    def _has_each_key_once(self) -> Self:
        keys = [field.key for field in self.fields or ()]
        if doubled := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"several fields have the key {doubled[0]!r}; give each its own")
        return self


def create_ask_user_tool(*, timeout: float | None = None) -> Tool:
    """Return the tool ``ask_user``; the run waits, without holding anything, until somebody answers.

    Its questions are ``suspend_ask_user_…`` events and are answered as any other: by `client.resume`, over
    HTTP, on the approval page or with ``polos approvals answer``. The model gets the answer as an object.

    Args:
        timeout: In seconds. A question that nobody answers in time is an error that the model reads; None:
            it waits for ever.

    Raises:
        ValueError: `timeout` is of no use.
    """
    seconds = check_seconds(timeout, "timeout of create_ask_user_tool()")

    async def ask_user(ctx: Any, input: AskUserInput) -> dict[str, Any]:
        key = f"ask_user_{await ctx.step.uuid('ask_user_id')}"
        try:
            event = await ctx.step.suspend(key, question_of(input), timeout=seconds)
        except StepExecutionError as error:
            raise RuntimeError(f"Nobody answered the question within {seconds:g} seconds") from error
        return {name: value for name, value in event["data"].items() if not name.startswith("_")}

    return Tool("ask_user", DESCRIPTION, func=ask_user)


def question_of(asked: AskUserInput) -> dict[str, Any]:
    """Return what is asked, as questions of runs are."""
    fields = [_field(field) for field in asked.fields or ()]
    return {
        "_form": {
            "title": asked.title or DEFAULT_TITLE,
            "description": asked.question,
            "fields": fields or [_named({"key": "response", "type": "textarea", "label": "Answer"}, True)],
        },
        "_source": "ask_user",
        "_tool": "ask_user",
    }


def _field(field: AskUserField) -> dict[str, Any]:
    return _named(field.model_dump(exclude_none=True), bool(field.required))


def _named(field: dict[str, Any], required: bool) -> dict[str, Any]:
    return {**field, "name": field["key"], "required": required}
