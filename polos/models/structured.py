"""Structured output: how each provider is asked for an answer that follows a JSON schema.

Where the provider has it, the schema is a field of the request; elsewhere the system prompt asks for it.
"""

from __future__ import annotations

import json
import re

import httpx

from polos.models.catalog import has_native_schemas, litellm_provider, supported_options
from polos.models.providers import Provider
from polos.models.request import Item, ModelRequest
from polos.models.schemas import ANTHROPIC, GEMINI, GRAMMAR, OPENAI, Dialect, Schema, adapted

_INSTRUCTION = "Answer with a single JSON value and nothing else. It must match this JSON schema:"
_GEMINI = re.compile(r"gemini-(\d+)")
_ABOUT_SCHEMAS = re.compile(
    r"response_?(?:format|schema|mime)|json[ _]?(?:schema|mode|validat)|output_(?:config|format)|schema|"
    r"structured output|grammar|response mime type",
    re.IGNORECASE,
)
_OPTIONS = ("response_format", "format", "response_schema")


def native_fields(
    provider: Provider, request: ModelRequest, *, options: Item, responses: bool, streamed: bool
) -> Item:
    """Return the fields of the provider's request that ask for the schema; none where it lacks them.

    Args:
        provider: Whom the request goes to.
        request: What is asked, with its `output_schema`.
        options: What the user has put into the provider's request.
        responses: Whether it goes to OpenAI's Responses API.
        streamed: Whether the answer is streamed, which some cannot do with a schema.
    """
    schema = request.output_schema
    if schema is None or any(name in options for name in _OPTIONS):
        return {}  # a user who writes the field knows what the provider wants
    match provider.name:
        case "openai" if responses:
            return _responses_format(request, schema)
        case "openai" | "azure":
            return _response_format(request, schema, OPENAI)
        case "groq":  # it has schemas neither with tools nor in streams
            return {} if request.tools or streamed else _response_format(request, schema, OPENAI)
        case "fireworks" | "together":
            return {} if request.tools else _response_format(request, schema, GRAMMAR)
        case "anthropic":
            return _anthropic_format(provider.litellm_model(request.model), schema)
        case "gemini":
            return _gemini_format(request, schema)
        case "ollama":
            found = None if request.tools else adapted(schema, GRAMMAR)
            return {"format": found} if found else {}
        case _:
            return _litellm_format(provider.litellm_model(request.model), request, schema)


def prompt_with_schema(request: ModelRequest) -> str | None:
    """Return the system prompt, which asks for the output schema where there is one."""
    if not request.output_schema:
        return request.system_prompt
    instruction = f"{_INSTRUCTION}\n{json.dumps(request.output_schema, ensure_ascii=False)}"
    return f"{request.system_prompt}\n\n{instruction}" if request.system_prompt else instruction


def refuses_schema(response: httpx.Response | None) -> bool:
    """Whether a provider turned a request down because of its schema, as far as its words tell."""
    if response is None or response.status_code not in (400, 422):
        return False
    return _ABOUT_SCHEMAS.search(response.text) is not None


def _response_format(request: ModelRequest, schema: Schema, dialect: Dialect) -> Item:
    if (found := adapted(schema, dialect)) is None:
        return {}
    return {"response_format": {"type": "json_schema", "json_schema": _named(request, found)}}


def _responses_format(request: ModelRequest, schema: Schema) -> Item:
    if (found := adapted(schema, OPENAI)) is None:
        return {}
    return {"text": {"format": {"type": "json_schema", **_named(request, found)}}}


def _named(request: ModelRequest, schema: Schema) -> Item:
    name = re.sub(r"[^A-Za-z0-9_-]", "_", request.output_schema_name or "answer")[:64]
    return {"name": name, "strict": True, "schema": schema}


def _anthropic_format(model: str, schema: Schema) -> Item:
    found = adapted(schema, ANTHROPIC) if has_native_schemas(model) else None
    return {"output_config": {"format": {"type": "json_schema", "schema": found}}} if found else {}


def _gemini_format(request: ModelRequest, schema: Schema) -> Item:
    """Models before 2 know another dialect only, models before 3 no schema beside tools."""
    generation = _GEMINI.search(request.model)
    if generation and int(generation[1]) < (3 if request.tools else 2):
        return {}
    found = adapted(schema, GEMINI)
    fields = {"responseMimeType": "application/json", "responseJsonSchema": found}
    return {"generationConfig": fields} if found else {}


def _litellm_format(model: str, request: ModelRequest, schema: Schema) -> Item:
    if request.tools or "response_format" not in supported_options(model) or not has_native_schemas(model):
        return {}
    dialect = GRAMMAR if litellm_provider(model) in ("ollama", "ollama_chat", "hosted_vllm") else OPENAI
    return _response_format(request, schema, dialect)
