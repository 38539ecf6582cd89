"""Structured output: natively where the provider has it, by the prompt elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from servers import (
    Answer,
    Recorder,
    anthropic_answer,
    chat_answer,
    gemini_answer,
    responses_answer,
    responses_text,
)
from test_model_stream_twins import TOOL

from polos.errors import ModelError
from polos.models.call import generate
from polos.models.request import ModelAnswer, ModelRequest
from polos.models.schemas import ANTHROPIC, GEMINI, GRAMMAR, OPENAI, adapted

SCHEMA = {
    "type": "object",
    "title": "Sum",
    "properties": {"total": {"type": "integer", "minimum": 0}},
    "required": ["total"],
    "additionalProperties": False,
}
NO_MINIMUM = {**SCHEMA, "properties": {"total": {"type": "integer", "description": "(at least 0)"}}}
CONTENT = '{"total": 3}'
OLLAMA = {
    "model": "m",
    "message": {"role": "assistant", "content": CONTENT},
    "done": True,
    "done_reason": "stop",
}
ANSWERS: dict[str, Any] = {
    "openai": responses_answer(responses_text(CONTENT)),
    "anthropic": anthropic_answer({"type": "text", "text": CONTENT}),
    "gemini": gemini_answer({"text": CONTENT}),
    "ollama": OLLAMA,
}
STRICT = {"name": "Sum", "strict": True, "schema": SCHEMA}
RESPONSE_FORMAT = {"response_format": {"type": "json_schema", "json_schema": STRICT}}
TEXT_FORMAT = {"text": {"format": {"type": "json_schema", **STRICT}}}
OUTPUT_CONFIG = {"output_config": {"format": {"type": "json_schema", "schema": NO_MINIMUM}}}
GENERATION = {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}}
PROMPT = None
"""The prompt asks."""


async def _ask(record: Recorder, wire: str, model: str, **fields: Any) -> ModelAnswer:
    name, _, chat = wire.partition(" ")
    path = "" if name in ("anthropic", "gemini", "ollama", "azure") else "/v1"
    on_chunk = fields.pop("on_chunk", None)
    known: dict[str, Any] = {
        "provider": name,
        "model": model,
        "messages": [{"role": "user", "content": "1 + 2?"}],
        "system_prompt": "You add.",
        "provider_llm_api": "chat_completions" if chat else None,
        "provider_base_url": record.url + path,
        "provider_kwargs": {"api_key": "key-of-test"} if name == "litellm" else {},
        "output_schema": SCHEMA,
        "output_schema_name": "Sum",
    }
    return await generate(ModelRequest(**{**known, **fields}), on_chunk=on_chunk)


@pytest.mark.parametrize(
    ("wire", "model", "has_tools", "expected"),
    [
        ("openai", "gpt-4o", False, TEXT_FORMAT),
        ("openai", "gpt-4o", True, TEXT_FORMAT),
        ("openai chat", "gpt-4o", False, RESPONSE_FORMAT),
        ("openai chat", "gpt-4o", True, RESPONSE_FORMAT),
        ("azure", "our-deployment", True, RESPONSE_FORMAT),
        ("anthropic", "claude-sonnet-4-6", False, OUTPUT_CONFIG),
        ("anthropic", "claude-sonnet-4-6", True, OUTPUT_CONFIG),
        ("anthropic", "claude-3-haiku-20240307", False, PROMPT),
        ("gemini", "gemini-2.5-flash", False, GENERATION),
        ("gemini", "gemini-2.5-flash", True, PROMPT),
        ("gemini", "gemini-3-pro-preview", True, GENERATION),
        ("gemini", "gemini-1.5-pro", False, PROMPT),
        ("groq", "openai/gpt-oss-120b", False, RESPONSE_FORMAT),
        ("groq", "openai/gpt-oss-120b", True, PROMPT),
        ("fireworks", "accounts/fireworks/models/m", False, RESPONSE_FORMAT),
        ("fireworks", "accounts/fireworks/models/m", True, PROMPT),
        ("together", "meta-llama/m", False, RESPONSE_FORMAT),
        ("together", "meta-llama/m", True, PROMPT),
        ("ollama", "llama3.1", False, {"format": SCHEMA}),
        ("ollama", "llama3.1", True, PROMPT),
        ("litellm", "openai/gpt-4o", False, RESPONSE_FORMAT),
        ("litellm", "openai/some-model", False, PROMPT),
    ],
)
async def test_how_each_provider_is_asked(
    record: Recorder, wire: str, model: str, has_tools: bool, expected: dict[str, Any] | None
) -> None:
    record.answers(Answer(ANSWERS.get(wire, chat_answer(CONTENT))))
    answer = await _ask(record, wire, model, tools=[TOOL] if has_tools else [])
    assert answer.content == CONTENT
    [seen] = record.seen
    is_prompted = "must match this JSON schema" in json.dumps(seen.body)
    assert is_prompted == (expected is None)
    assert "You add." in json.dumps(seen.body)
    for name, value in (expected or {}).items():
        assert _part(seen.body[name], value) == value


def _part(found: Any, wanted: Any) -> Any:
    return {name: found.get(name) for name in wanted} if isinstance(wanted, dict) else found


async def test_groq_has_no_schemas_in_streams(record: Recorder) -> None:
    record.answers(Answer(chat_answer(CONTENT)))
    await _ask(record, "groq", "openai/gpt-oss-120b", on_chunk=lambda _: None)
    assert "response_format" not in record.last.body
    assert record.last.body["stream"] is True


REFUSALS = [
    (
        "openai chat",
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model",
    ),
    ("openai", "Invalid schema for response_format 'Sum': In context=(), 'type' is missing"),
    (
        "azure",
        "response_format value as json_schema is enabled only for api versions 2024-08-01-preview and later",
    ),
    ("groq", "This model does not support response format `json_schema`"),
    ("anthropic", "output_config.format.schema: Schema is too complex"),
    ("gemini", "Function calling with a response mime type: 'application/json' is unsupported"),
]


@pytest.mark.parametrize(("wire", "says"), REFUSALS)
async def test_a_schema_the_provider_refuses_is_asked_for_in_the_prompt_from_then_on(
    record: Recorder, wire: str, says: str
) -> None:
    refused = Answer({"error": {"message": says, "type": "invalid_request_error"}}, status=400)
    good = Answer(ANSWERS.get(wire, chat_answer(CONTENT)))
    record.answers(refused, good)
    model = {"anthropic": "claude-sonnet-4-6", "gemini": "gemini-2.5-flash"}.get(wire, "m")
    assert (await _ask(record, wire, model, idempotency_key="k")).content == CONTENT
    assert (await _ask(record, wire, model, idempotency_key="k")).content == CONTENT
    keys = [seen.headers["idempotency-key"] for seen in record.seen]
    assert keys == ["k", "k:prompt", "k:prompt"]  # one key never stands for two requests
    prompted = ["must match this JSON schema" in json.dumps(seen.body) for seen in record.seen]
    assert prompted == [False, True, True]
    other = {**SCHEMA, "properties": {"other": {"type": "integer"}}}
    await _ask(record, wire, model, output_schema=other)
    assert "must match this JSON schema" not in json.dumps(record.last.body)


async def test_a_request_that_is_refused_for_another_reason_is_sent_once(record: Recorder) -> None:
    record.answers(Answer({"error": {"message": "temperature must be at most 2"}}, status=400))
    with pytest.raises(ModelError, match="temperature"):
        await _ask(record, "together", "m")
    assert len(record.seen) == 1


async def test_a_format_of_the_users_own_stays(record: Recorder) -> None:
    record.answers(Answer(chat_answer(CONTENT)))
    own = {"response_format": {"type": "json_object"}}
    await _ask(record, "together", "m", provider_kwargs=own)
    assert record.last.body["response_format"] == {"type": "json_object"}


async def test_other_settings_beside_the_format_are_kept(record: Recorder) -> None:
    record.answers(Answer(responses_answer(responses_text(CONTENT))))
    await _ask(record, "openai", "gpt-5", provider_kwargs={"text": {"verbosity": "low"}})
    assert record.last.body["text"] == {"verbosity": "low", **TEXT_FORMAT["text"]}
    record.answers(Answer(ANSWERS["anthropic"]))
    options = {"output_config": {"effort": "low"}}
    await _ask(record, "anthropic", "claude-sonnet-4-6", provider_kwargs=options)
    assert record.last.body["output_config"] == {"effort": "low", **OUTPUT_CONFIG["output_config"]}


def _object(**properties: Any) -> dict[str, Any]:
    names = list(properties)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


TREE = {
    **_object(value={"type": "integer"}, below={"$ref": "#/$defs/Tree"}),
    "$defs": {"Tree": _object(value={"type": "integer"})},
}
DICTIONARY = _object(counts={"type": "object", "additionalProperties": {"type": "integer"}})
LIST = {"type": "array", "items": {"type": "integer"}}


@pytest.mark.parametrize(
    ("schema", "dialects"),
    [(TREE, [OPENAI, GRAMMAR]), (DICTIONARY, [GEMINI, GRAMMAR]), (LIST, [ANTHROPIC, GEMINI, GRAMMAR])],
)
def test_what_a_dialect_cannot_say_at_all_is_left_to_the_prompt(schema: Any, dialects: list[Any]) -> None:
    each = [OPENAI, ANTHROPIC, GEMINI, GRAMMAR]
    assert [dialect for dialect in each if adapted(schema, dialect)] == dialects


def test_constraints_a_dialect_lacks_become_words() -> None:
    text = {"type": "string", "minLength": 2, "format": "uri", "description": "A link", "default": "x"}
    choice = {"oneOf": [{"const": "a"}, {"type": "null"}], "discriminator": {}}
    schema = _object(
        link=text, choice=choice, many={"type": "array", "items": text, "minItems": 1, "maxItems": 3}
    )
    [link, kind, many] = adapted(schema, ANTHROPIC)["properties"].values()  # type: ignore[index]
    assert link == {"type": "string", "format": "uri", "description": "A link (at least 2 characters)"}
    assert kind == {"anyOf": [{"const": "a"}, {"type": "null"}]}
    assert many["description"] == "(at most 3 items)"
    assert (many["minItems"], many["items"]) == (1, link)
    [link, _, many] = adapted(schema, OPENAI)["properties"].values()  # type: ignore[index]
    assert link == {"type": "string", "description": "A link (at least 2 characters; format: uri)"}
    assert (many["minItems"], many["maxItems"]) == (1, 3)
    assert adapted(schema, GEMINI)["properties"]["choice"]["anyOf"][0] == {"enum": ["a"]}  # type: ignore[index]


def test_a_property_may_be_called_like_a_keyword() -> None:
    schema = _object(pattern={"type": "string"}, format={"type": "string"}, default={"type": "string"})
    assert adapted(schema, ANTHROPIC) == schema
