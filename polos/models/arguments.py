"""What LiteLLM is given for one attempt: the request as each provider wants it."""

from __future__ import annotations

from polos.models import anthropic
from polos.models.attempt import Attempt
from polos.models.catalog import max_output_tokens, supported_options
from polos.models.connections import Body
from polos.models.fields import merged, messages, responses_fields, sampling, split_tools, token_limit
from polos.models.messages import chat_tools, failed_call_ids, responses_input
from polos.models.providers import Wire
from polos.models.wire import Handler, litellm_client, sdk_client


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
    extras = responses_fields(attempt)
    return {
        "input": responses_input(attempt.request.messages),
        "client": Handler(attempt.pool.http, amend=lambda body: merged(body, extras)),
        **common_arguments(attempt),
    }


def _plain_chat(attempt: Attempt) -> Body:
    """The provider speaks chat completions: options and tools go out as they are, past LiteLLM's checks."""
    request, schema = attempt.request, attempt.schema_fields()
    tools = {"tools": chat_tools(request.tools)} if request.tools else {}
    extras = {**tools, **sampling(request), **schema, **attempt.options}
    arguments: Body = {"messages": messages(attempt, schema), **token_limit(attempt)}
    if attempt.provider.name in ("openai", "azure"):
        client = sdk_client(attempt.pool, attempt.provider.name, attempt.endpoint)
        return {**arguments, "client": client, "extra_body": extras}
    amend = Handler(attempt.pool.http, amend=lambda body: merged(body, extras))
    return {**arguments, "client": amend}


def _anthropic_chat(attempt: Attempt) -> Body:
    request, options, schema = attempt.request, attempt.options, attempt.schema_fields()
    functions, built_in = split_tools(request.tools)

    def amend(body: Body) -> Body:
        if built_in:
            body["tools"] = [*body.get("tools", ()), *built_in]
        anthropic.mark_failed_tools(body, failed_call_ids(request.messages))
        anthropic.mark_for_caching(body)
        return merged(merged(body, schema), {**sampling(request), **options})

    limit = request.max_output_tokens or anthropic.default_max_tokens(
        max_output_tokens(attempt.litellm_model), options.get("thinking")
    )
    return {
        "messages": messages(attempt, schema),
        "max_tokens": options.get("max_tokens", limit),
        "client": Handler(attempt.pool.http, amend=amend),
        **({"tools": functions} if functions else {}),
    }


def _translated_chat(attempt: Attempt) -> Body:
    """The provider has its own format: LiteLLM places the options it knows, others go out as they are."""
    request, schema = attempt.request, attempt.schema_fields()
    functions, built_in = split_tools(request.tools)
    usual = supported_options(attempt.litellm_model)
    extras = {name: value for name, value in attempt.options.items() if name not in usual}
    said = messages(attempt, schema)
    if attempt.provider.name == "gemini" and said[0]["role"] == "system":
        # For a model LiteLLM does not know yet it would become part of the user's message.
        extras = {"systemInstruction": {"parts": [{"text": said.pop(0)["content"]}]}, **extras}

    def amend(body: Body) -> Body:
        if built_in:
            body["tools"] = [*body.get("tools", ()), *built_in]
        return merged(merged(body, schema), extras)

    return {
        "messages": said,
        "client": Handler(attempt.pool.http, amend=amend),
        **({"tools": functions} if functions else {}),
        **sampling(request),
        **token_limit(attempt),
        **{name: value for name, value in attempt.options.items() if name in usual},
    }


def _litellm_chat(attempt: Attempt) -> Body:
    """LiteLLM's own provider names and options: everything is an argument of its completion function."""
    request, schema = attempt.request, attempt.schema_fields()
    options = {
        **({"tools": chat_tools(request.tools)} if request.tools else {}),
        **sampling(request),
        **token_limit(attempt),
        **schema,
        **attempt.options,
    }
    unusual = sorted(set(options) - supported_options(attempt.litellm_model))
    client = litellm_client(attempt.pool, attempt.litellm_model, attempt.endpoint)
    return {
        "messages": messages(attempt, schema),
        "allowed_openai_params": unusual,
        **({"client": client} if client else {}),
        **options,
    }
