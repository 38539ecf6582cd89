"""One attempt at a model call: the request as this provider wants it, sent through LiteLLM, read back."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from polos.errors import ModelError
from polos.models import anthropic
from polos.models.answers import CallIds, from_chat, from_responses
from polos.models.catalog import is_reasoning_model, litellm_provider, max_output_tokens, supported_options
from polos.models.delivery import Delivery
from polos.models.estimates import completed_usage, written_in
from polos.models.failures import (
    Call,
    error_code,
    error_response,
    failed_answer_error,
    model_error,
    timeout_error,
    unusable_answer_error,
)
from polos.models.messages import (
    chat_messages,
    chat_tools,
    failed_call_ids,
    known_call_ids,
    responses_input,
    responses_tools,
)
from polos.models.prices import call_cost
from polos.models.providers import Endpoint, Provider, Wire
from polos.models.request import Chunk, Item, ModelAnswer, ModelRequest
from polos.models.streams.reading import Streamed
from polos.models.wire import (
    BeforeSend,
    Body,
    Connections,
    Exchange,
    Handler,
    close_connections,
    complete,
    connections,
    respond,
)
from polos.types import Usage

__all__ = ["ask", "close_connections"]

_LIMIT_OPTIONS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_SCHEMA_INSTRUCTION = "Answer with a single JSON value and nothing else. It must match this JSON schema:"


@dataclass(frozen=True)
class Attempt:
    """Everything one attempt needs; `options` are the fields that go into the provider's request last."""

    request: ModelRequest
    provider: Provider
    endpoint: Endpoint
    call: Call
    options: dict[str, Any]
    headers: dict[str, str]
    pool: Connections
    exchange: Exchange
    delivery: Delivery | None = None

    @property
    def litellm_model(self) -> str:
        return self.provider.litellm_model(self.request.model)

    def call_ids(self) -> CallIds:
        """Return what makes the call ids of the whole answer unique."""
        if self.delivery is not None:
            return self.delivery.call_ids()
        return CallIds(known_call_ids(self.request.messages))


async def ask(
    request: ModelRequest,
    provider: Provider,
    *,
    endpoint: Endpoint,
    options: dict[str, Any],
    before_send: BeforeSend | None = None,
    on_chunk: Callable[[Chunk], None] | None = None,
) -> ModelAnswer:
    """Return the answer to `request`; see `polos.models.call.generate`."""
    call = Call(
        provider=provider.name,
        model=request.model,
        base_url=endpoint.base_url,
        secrets=(endpoint.api_key,) if endpoint.api_key else (),
        timeout_seconds=request.timeout_seconds,
        handled=sys.exception(),
    )
    delivery = Delivery(on_chunk, known_call_ids(request.messages)) if on_chunk else None
    streamed = Streamed(delivery, request.chunk_timeout_seconds) if delivery else None
    attempt = await _prepare(
        request,
        provider,
        endpoint,
        call=call,
        options=options,
        exchange=Exchange(before_send, streamed),
        delivery=delivery,
    )
    try:
        answer, body = await _exchange(attempt)
    except ModelError as error:
        error.usage = _usage_of_failure(attempt)
        raise
    model = (answer.model or request.model).removeprefix(provider.prefix)
    usage = _priced(_counted(attempt, answer), attempt, body, model)
    if (unusable := _why_unusable(call, answer, body)) is not None:
        unusable.usage = usage
        raise unusable
    if delivery:
        delivery.complete(answer)
    return answer.model_copy(update={"model": model, "usage": usage})


def _why_unusable(call: Call, answer: ModelAnswer, body: Body) -> ModelError | None:
    if failure := body.get("error"):
        return failed_answer_error(call, failure)
    return unusable_answer_error(call, answer)


def _usage_of_failure(attempt: Attempt) -> Usage | None:
    """Return what a call that failed is billed for: what came of the answer, if it had begun to come."""
    if not attempt.exchange.answered:
        return None
    streamed = attempt.exchange.streamed
    assembler = streamed.assembler if streamed else None
    said, written = (assembler.counted(), assembler.written) if assembler else (Usage(), 0)
    return _priced(completed_usage(said, attempt.request, written=written), attempt)


def _counted(attempt: Attempt, answer: ModelAnswer) -> Usage:
    if answer.usage.total_tokens:
        return answer.usage
    return completed_usage(answer.usage, attempt.request, written=written_in(answer.raw_output))


def _priced(
    usage: Usage, attempt: Attempt, body: Body | None = None, served_model: str | None = None
) -> Usage:
    body = body or {}
    billed = body.get("usage") or {}
    cost = call_cost(
        attempt.provider,
        attempt.request.model,
        usage,
        served_model=served_model,
        billed=billed if billed.get("total_tokens") else None,
        service_tier=body.get("service_tier"),
    )
    return usage.model_copy(update={"cost": cost})


async def _prepare(
    request: ModelRequest,
    provider: Provider,
    endpoint: Endpoint,
    *,
    call: Call,
    options: dict[str, Any],
    exchange: Exchange,
    delivery: Delivery | None,
) -> Attempt:
    headers = {**options.pop("extra_headers", {})}
    if request.idempotency_key:
        headers["Idempotency-Key"] = request.idempotency_key
    options.update(options.pop("extra_body", {}))
    options.pop("stream", None)  # whether to stream is decided by the entry point
    return Attempt(
        request, provider, endpoint, call, options, headers, await connections(), exchange, delivery
    )


async def _exchange(attempt: Attempt) -> tuple[ModelAnswer, Body]:
    try:
        async with asyncio.timeout(attempt.request.timeout_seconds):
            return await _ask(attempt)
    except TimeoutError as error:
        raise timeout_error(attempt.call) from error
    except Exception as error:
        if attempt.delivery and attempt.delivery.raised:
            raise attempt.delivery.raised from None  # the caller's own, not the provider's
        raise model_error(error, replace(attempt.call, answered=attempt.exchange.answered)) from error


async def _ask(attempt: Attempt) -> tuple[ModelAnswer, Body]:
    if attempt.provider.name == "openai":
        return await _ask_openai(attempt)
    return await _ask_chat(attempt)


async def _ask_openai(attempt: Attempt) -> tuple[ModelAnswer, Body]:
    """Use OpenAI Responses, or chat completions where asked for or where the server has nothing else."""
    base_url = attempt.endpoint.base_url
    if attempt.request.provider_llm_api == "chat_completions" or base_url in attempt.pool.chat_only_base_urls:
        return await _ask_chat(attempt)
    try:
        return await _ask_responses(attempt)
    except Exception as error:
        if not _lacks_responses(error, attempt.call):
            raise
    attempt.pool.chat_only_base_urls.add(base_url)
    return await _ask_chat(attempt)


def _lacks_responses(error: Exception, call: Call) -> bool:
    """Whether the server does not know the Responses API at all, rather than not the model."""
    response = error_response(error, call)
    if response is None or response.status_code not in (404, 405):
        return False
    return error_code(response) != "model_not_found" and call.model not in response.text


async def _ask_responses(attempt: Attempt) -> tuple[ModelAnswer, Body]:
    extras = _responses_extras(attempt)
    body = await respond(
        attempt.exchange,
        input=responses_input(attempt.request.messages),
        client=Handler(attempt.pool.http, amend=lambda body: _merged(body, extras)),
        **_common(attempt),
    )
    return from_responses(body, attempt.call_ids()), body


async def _ask_chat(attempt: Attempt) -> tuple[ModelAnswer, Body]:
    body = await complete(attempt.exchange, **_common(attempt), **_chat_arguments(attempt))
    return from_chat(body, attempt.call_ids(), thinks_aloud=_may_think_aloud(attempt)), body


def _may_think_aloud(attempt: Attempt) -> bool:
    """Whether an open model may answer, whose server leaves reasoning in the text."""
    if attempt.provider.wire is Wire.LITELLM:
        return litellm_provider(attempt.litellm_model) not in ("anthropic", "gemini")
    return attempt.provider.wire is Wire.CHAT or attempt.provider.name == "ollama"


def _common(attempt: Attempt) -> Body:
    arguments: Body = {
        "model": attempt.litellm_model,
        "api_key": attempt.endpoint.api_key,
        "api_base": attempt.endpoint.base_url,
        "timeout": attempt.request.timeout_seconds,
    }
    return {**arguments, "extra_headers": attempt.headers} if attempt.headers else arguments


def _chat_arguments(attempt: Attempt) -> Body:
    match attempt.provider.wire:
        case Wire.CHAT:
            return _plain_chat(attempt)
        case Wire.ANTHROPIC:
            return _anthropic_chat(attempt)
        case Wire.TRANSLATED:
            return _translated_chat(attempt)
        case Wire.LITELLM:
            return _litellm_chat(attempt)


def _plain_chat(attempt: Attempt) -> Body:
    """The provider speaks chat completions: options and tools go out as they are, past LiteLLM's checks."""
    request = attempt.request
    tools = {"tools": chat_tools(request.tools)} if request.tools else {}
    extras = {**tools, **_sampling(request)}
    arguments: Body = _token_limit(attempt)
    if attempt.provider.name in ("openai", "azure"):
        arguments["messages"] = chat_messages(request.messages, system_prompt=request.system_prompt)
        if request.output_schema and not request.tools:
            extras["response_format"] = {"type": "json_schema", "json_schema": _strict_schema(request)}
        elif request.output_schema:
            arguments["messages"] = _messages_with_schema(request)
        arguments["client"] = attempt.pool.sdk_client(attempt.provider.name, attempt.endpoint)
        arguments["extra_body"] = {**extras, **attempt.options}
        return arguments
    extras.update(attempt.options)
    arguments["messages"] = _messages_with_schema(request)
    arguments["client"] = Handler(attempt.pool.http, amend=lambda body: _merged(body, extras))
    return arguments


def _anthropic_chat(attempt: Attempt) -> Body:
    request, options = attempt.request, attempt.options
    functions, built_in = _split_tools(request.tools)

    def amend(body: Body) -> Body:
        if built_in:
            body["tools"] = [*body.get("tools", ()), *built_in]
        anthropic.mark_failed_tools(body, failed_call_ids(request.messages))
        anthropic.mark_for_caching(body)
        return _merged(body, {**_sampling(request), **options})

    limit = request.max_output_tokens or anthropic.default_max_tokens(
        max_output_tokens(attempt.litellm_model), options.get("thinking")
    )
    return {
        "messages": _messages_with_schema(request),
        "max_tokens": options.get("max_tokens", limit),
        "client": Handler(attempt.pool.http, amend=amend),
        **({"tools": functions} if functions else {}),
    }


def _translated_chat(attempt: Attempt) -> Body:
    """The provider has its own format: LiteLLM places the options it knows, others go out as they are."""
    request = attempt.request
    functions, built_in = _split_tools(request.tools)
    usual = supported_options(attempt.litellm_model)
    extras = {name: value for name, value in attempt.options.items() if name not in usual}
    messages = _messages_with_schema(request)
    if attempt.provider.name == "gemini" and messages[0]["role"] == "system":
        # For a model LiteLLM does not know yet it would become part of the user's message.
        extras = {"systemInstruction": {"parts": [{"text": messages.pop(0)["content"]}]}, **extras}

    def amend(body: Body) -> Body:
        if built_in:
            body["tools"] = [*body.get("tools", ()), *built_in]
        return _merged(body, extras)

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
    request = attempt.request
    options = {
        **({"tools": chat_tools(request.tools)} if request.tools else {}),
        **_sampling(request),
        **_token_limit(attempt),
        **attempt.options,
    }
    unusual = sorted(set(options) - supported_options(attempt.litellm_model))
    client = attempt.pool.litellm_client(attempt.litellm_model, attempt.endpoint)
    return {
        "messages": _messages_with_schema(request),
        "allowed_openai_params": unusual,
        **({"client": client} if client else {}),
        **options,
    }


def _responses_extras(attempt: Attempt) -> Body:
    request, options = attempt.request, dict(attempt.options)
    if "max_tokens" in options:
        options.setdefault("max_output_tokens", options.pop("max_tokens"))
    fields: Body = {
        "instructions": request.system_prompt,
        "tools": responses_tools(request.tools) or None,
        "max_output_tokens": request.max_output_tokens,
        # Lets reasoning go back in the next call even where the provider may not store it.
        "include": ["reasoning.encrypted_content"] if is_reasoning_model(request.model) else None,
        "text": {"format": {"type": "json_schema", **_strict_schema(request)}}
        if request.output_schema
        else None,
        **_sampling(request),
    }
    present = {name: value for name, value in fields.items() if value is not None}
    return _merged(present, options)


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


def _strict_schema(request: ModelRequest) -> Body:
    return {"name": request.output_schema_name or "answer", "strict": True, "schema": request.output_schema}


def _messages_with_schema(request: ModelRequest) -> list[Item]:
    """Return the chat messages, the system prompt asking for the output schema where there is one."""
    prompt = request.system_prompt
    if request.output_schema:
        instruction = f"{_SCHEMA_INSTRUCTION}\n{json.dumps(request.output_schema)}"
        prompt = f"{prompt}\n\n{instruction}" if prompt else instruction
    return chat_messages(request.messages, system_prompt=prompt)


def _merged(body: Body, extras: Body) -> Body:
    """Return `body` with `extras` winning; objects on both sides are merged one level deep."""
    merged = {**body, **extras}
    for name in body.keys() & extras.keys():
        if isinstance(body[name], dict) and isinstance(extras[name], dict):
            merged[name] = {**body[name], **extras[name]}
    return merged
