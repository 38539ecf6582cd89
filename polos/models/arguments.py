"""What LiteLLM is given for one attempt: the request as each provider wants it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from polos.models import anthropic
from polos.models.answers import CallIds
from polos.models.catalog import is_reasoning_model, litellm_provider, max_output_tokens, supported_options
from polos.models.delivery import Delivery
from polos.models.failures import Call
from polos.models.messages import (
    chat_messages,
    chat_tools,
    failed_call_ids,
    known_call_ids,
    responses_input,
    responses_tools,
)
from polos.models.providers import Endpoint, Provider, Wire
from polos.models.request import Item, ModelRequest
from polos.models.structured import native_fields, prompt_with_schema
from polos.models.wire import Body, Connections, Exchange, Handler

# They have a model go on thinking where it left off; most others refuse the field.
_WANT_REASONING = ("deepseek", "fireworks_ai", "moonshot")
_LIMIT_OPTIONS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@dataclass(frozen=True)
class Attempt:
    """Everything one attempt needs.

    Attributes:
        options: The fields that go into the provider's request last.
        by_prompt: Whether the system prompt asks for the output schema, wherever the provider has a field.
    """

    request: ModelRequest
    provider: Provider
    endpoint: Endpoint
    call: Call
    options: dict[str, Any]
    headers: dict[str, str] = field(repr=False)
    pool: Connections
    exchange: Exchange
    delivery: Delivery | None = None
    by_prompt: bool = False

    @property
    def litellm_model(self) -> str:
        """The model as LiteLLM names it."""
        return self.provider.litellm_model(self.request.model)

    def call_ids(self) -> CallIds:
        """Return what makes the call ids of the whole answer unique."""
        if self.delivery is not None:
            return self.delivery.call_ids()
        return CallIds(known_call_ids(self.request.messages))

    def schema_fields(self, *, responses: bool = False) -> Item:
        """Return the fields that ask for the output schema; none where the prompt has to."""
        if self.by_prompt:
            return {}
        streamed = self.exchange.streamed is not None
        return native_fields(
            self.provider, self.request, options=self.options, responses=responses, streamed=streamed
        )

    def system_prompt(self, schema_fields: Item) -> str | None:
        """Return the system prompt, which asks for the output schema where no field does."""
        return self.request.system_prompt if schema_fields else prompt_with_schema(self.request)


def may_think_aloud(attempt: Attempt) -> bool:
    """Whether an open model may answer, whose server leaves reasoning in the text."""
    if attempt.provider.wire is Wire.LITELLM:
        return litellm_provider(attempt.litellm_model) not in ("anthropic", "gemini")
    return attempt.provider.wire is Wire.CHAT or attempt.provider.name == "ollama"


def common_arguments(attempt: Attempt) -> Body:
    """Return the arguments every call has."""
    arguments: Body = {
        "model": attempt.litellm_model,
        "api_key": attempt.endpoint.api_key,
        "api_base": attempt.endpoint.base_url,
        "timeout": attempt.request.timeout_seconds,
    }
    return {**arguments, "extra_headers": attempt.headers} if attempt.headers else arguments


def chat_arguments(attempt: Attempt) -> Body:
    """Return the other arguments of LiteLLM's chat completion."""
    match attempt.provider.wire:
        case Wire.CHAT:
            return _plain_chat(attempt)
        case Wire.ANTHROPIC:
            return _anthropic_chat(attempt)
        case Wire.TRANSLATED:
            return _translated_chat(attempt)
        case Wire.LITELLM:
            return _litellm_chat(attempt)


def responses_arguments(attempt: Attempt) -> Body:
    """Return the arguments for OpenAI's Responses API."""
    extras = _responses_extras(attempt)
    return {
        "input": responses_input(attempt.request.messages),
        "client": Handler(attempt.pool.http, amend=lambda body: _merged(body, extras)),
        **common_arguments(attempt),
    }


def _plain_chat(attempt: Attempt) -> Body:
    """The provider speaks chat completions: options and tools go out as they are, past LiteLLM's checks."""
    request, schema = attempt.request, attempt.schema_fields()
    tools = {"tools": chat_tools(request.tools)} if request.tools else {}
    extras = {**tools, **_sampling(request), **schema, **attempt.options}
    arguments: Body = {"messages": _messages(attempt, schema), **_token_limit(attempt)}
    if attempt.provider.name in ("openai", "azure"):
        client = attempt.pool.sdk_client(attempt.provider.name, attempt.endpoint)
        return {**arguments, "client": client, "extra_body": extras}
    amend = Handler(attempt.pool.http, amend=lambda body: _merged(body, extras))
    return {**arguments, "client": amend}


def _anthropic_chat(attempt: Attempt) -> Body:
    request, options, schema = attempt.request, attempt.options, attempt.schema_fields()
    functions, built_in = _split_tools(request.tools)

    def amend(body: Body) -> Body:
        if built_in:
            body["tools"] = [*body.get("tools", ()), *built_in]
        anthropic.mark_failed_tools(body, failed_call_ids(request.messages))
        anthropic.mark_for_caching(body)
        return _merged(_merged(body, schema), {**_sampling(request), **options})

    limit = request.max_output_tokens or anthropic.default_max_tokens(
        max_output_tokens(attempt.litellm_model), options.get("thinking")
    )
    return {
        "messages": _messages(attempt, schema),
        "max_tokens": options.get("max_tokens", limit),
        "client": Handler(attempt.pool.http, amend=amend),
        **({"tools": functions} if functions else {}),
    }


def _translated_chat(attempt: Attempt) -> Body:
    """The provider has its own format: LiteLLM places the options it knows, others go out as they are."""
    request, schema = attempt.request, attempt.schema_fields()
    functions, built_in = _split_tools(request.tools)
    usual = supported_options(attempt.litellm_model)
    extras = {name: value for name, value in attempt.options.items() if name not in usual}
    messages = _messages(attempt, schema)
    if attempt.provider.name == "gemini" and messages[0]["role"] == "system":
        # For a model LiteLLM does not know yet it would become part of the user's message.
        extras = {"systemInstruction": {"parts": [{"text": messages.pop(0)["content"]}]}, **extras}

    def amend(body: Body) -> Body:
        if built_in:
            body["tools"] = [*body.get("tools", ()), *built_in]
        return _merged(_merged(body, schema), extras)

    return {
        "messages": messages,
        "client": Handler(attempt.pool.http, amend=amend),
        **({"tools": functions} if functions else {}),
        **_sampling(request),
        **_token_limit(attempt),
        **{name: value for name, value in attempt.options.items() if name in usual},
    }


def _litellm_chat(attempt: Attempt) -> Body:
    """LiteLLM's own provider names and options: everything is an argument of its completion function."""
    request, schema = attempt.request, attempt.schema_fields()
    options = {
        **({"tools": chat_tools(request.tools)} if request.tools else {}),
        **_sampling(request),
        **_token_limit(attempt),
        **schema,
        **attempt.options,
    }
    unusual = sorted(set(options) - supported_options(attempt.litellm_model))
    client = attempt.pool.litellm_client(attempt.litellm_model, attempt.endpoint)
    return {
        "messages": _messages(attempt, schema),
        "allowed_openai_params": unusual,
        **({"client": client} if client else {}),
        **options,
    }


def _responses_extras(attempt: Attempt) -> Body:
    request, options = attempt.request, dict(attempt.options)
    schema = attempt.schema_fields(responses=True)
    if "max_tokens" in options:
        options.setdefault("max_output_tokens", options.pop("max_tokens"))
    fields: Body = {
        "instructions": attempt.system_prompt(schema),
        "tools": responses_tools(request.tools) or None,
        "max_output_tokens": request.max_output_tokens,
        # Lets reasoning go back in the next call even where the provider may not store it.
        "include": ["reasoning.encrypted_content"] if is_reasoning_model(request.model) else None,
        **schema,
        **_sampling(request),
    }
    present = {name: value for name, value in fields.items() if value is not None}
    return _merged(present, options)


def _messages(attempt: Attempt, schema_fields: Item) -> list[Item]:
    return chat_messages(
        attempt.request.messages,
        system_prompt=attempt.system_prompt(schema_fields),
        with_reasoning=litellm_provider(attempt.litellm_model) in _WANT_REASONING,
        tool_images=attempt.provider.takes_tool_images,
    )


def _sampling(request: ModelRequest) -> Body:
    options = {"temperature": request.temperature, "top_p": request.top_p}
    return {name: value for name, value in options.items() if value is not None}


def _token_limit(attempt: Attempt) -> Body:
    """Return the agent's limit, unless the options name one; LiteLLM knows each model's word for it."""
    limit = attempt.request.max_output_tokens
    is_overridden = any(name in attempt.options for name in _LIMIT_OPTIONS)
    return {} if limit is None or is_overridden else {"max_tokens": limit}


def _split_tools(tools: list[Item]) -> tuple[list[Item], list[Item]]:
    """Return the function tools in chat form, and the provider's built-in tools unchanged."""
    functions = [tool for tool in tools if tool.get("type") == "function"]
    return chat_tools(functions), [tool for tool in tools if tool.get("type") != "function"]


def _merged(body: Body, extras: Body) -> Body:
    """Return `body` with `extras` winning; objects on both sides are merged one level deep."""
    merged = {**body, **extras}
    for name in body.keys() & extras.keys():
        if isinstance(body[name], dict) and isinstance(extras[name], dict):
            merged[name] = {**body[name], **extras[name]}
    return merged
