"""One attempt at a model call: what is asked for, what it cost, and why an answer is none."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any, Protocol

from polos.errors import ModelError
from polos.models.attempt import Attempt
from polos.models.connections import BeforeSend, Body, Exchange, close_connections, connections
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
from polos.models.messages import known_call_ids
from polos.models.prices import NeedsLiteLLMError, call_cost
from polos.models.providers import Endpoint, Provider
from polos.models.request import Chunk, ModelAnswer, ModelRequest
from polos.models.streams.reading import Streamed
from polos.models.structured import refuses_schema
from polos.types import Usage

__all__ = ["Path", "ask", "close_connections"]


class Path(Protocol):
    """A way for calls to go out: `polos.models.through_litellm` or `polos.models.lean`.

    Each function sends one request and returns what came, read and as it was.
    """

    async def ask_chat(self, attempt: Attempt) -> tuple[ModelAnswer, Body]:
        """Ask as the provider's own API wants it."""

    async def ask_responses(self, attempt: Attempt) -> tuple[ModelAnswer, Body]:
        """Ask OpenAI's Responses API."""


async def ask(
    request: ModelRequest,
    provider: Provider,
    *,
    path: Path,
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
        answer, body = await _exchange(attempt, path)
    except ModelError as error:
        error.usage = await _usage_of_failure(attempt)
        raise
    model = (answer.model or request.model).removeprefix(provider.prefix)
    usage = await _priced(_counted(attempt, answer), attempt, body, model)
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


async def _usage_of_failure(attempt: Attempt) -> Usage | None:
    """Return what a call that failed is billed for: what came of the answer, if it had begun to come."""
    if not attempt.exchange.answered:
        return None
    streamed = attempt.exchange.streamed
    assembler = streamed.assembler if streamed else None
    said, written = (assembler.counted(), assembler.written) if assembler else (Usage(), 0)
    return await _priced(completed_usage(said, attempt.request, written=written), attempt)


def _counted(attempt: Attempt, answer: ModelAnswer) -> Usage:
    if answer.usage.total_tokens:
        return answer.usage
    return completed_usage(answer.usage, attempt.request, written=written_in(answer.raw_output))


async def _priced(
    usage: Usage, attempt: Attempt, body: Body | None = None, served_model: str | None = None
) -> Usage:
    cost = partial(_cost, usage, attempt, body or {}, served_model)
    try:
        found = cost()
    except NeedsLiteLLMError:
        await asyncio.to_thread(import_module, "polos.models.library")
        found = cost()
    return usage.model_copy(update={"cost": found})


def _cost(usage: Usage, attempt: Attempt, body: Body, served_model: str | None) -> float | None:
    billed = body.get("usage") or {}
    return call_cost(
        attempt.provider,
        attempt.request.model,
        usage,
        served_model=served_model,
        billed=billed if billed.get("total_tokens") else None,
        service_tier=body.get("service_tier"),
    )


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


async def _exchange(attempt: Attempt, path: Path) -> tuple[ModelAnswer, Body]:
    try:
        async with asyncio.timeout(attempt.request.timeout_seconds):
            return await _ask(attempt, path)
    except TimeoutError as error:
        raise timeout_error(attempt.call) from error
    except Exception as error:
        if attempt.delivery and attempt.delivery.raised:
            raise attempt.delivery.raised from None  # the caller's own, not the provider's
        raise model_error(error, replace(attempt.call, answered=attempt.exchange.answered)) from error


async def _ask(attempt: Attempt, path: Path) -> tuple[ModelAnswer, Body]:
    """Ask with the output schema where the provider has a field for it, unless it refuses this schema."""
    request = attempt.request
    if not request.output_schema:
        return await _ask_provider(attempt, path)
    key = (attempt.endpoint.base_url, request.model, json.dumps(request.output_schema))
    if key in attempt.pool.refused_schemas:
        return await _ask_provider(_by_prompt(attempt), path)
    try:
        return await _ask_provider(attempt, path)
    except Exception as error:
        if not refuses_schema(error_response(error, attempt.call)):
            raise
    answer = await _ask_provider(_by_prompt(attempt), path)  # a refused request costs nothing
    attempt.pool.refused_schemas[key] = True
    return answer


def _by_prompt(attempt: Attempt) -> Attempt:
    """Return the attempt with the schema in its prompt: another request, so under another key."""
    headers = dict(attempt.headers)
    if key := headers.get("Idempotency-Key"):
        headers["Idempotency-Key"] = f"{key}:prompt"
    return replace(attempt, by_prompt=True, headers=headers)


async def _ask_provider(attempt: Attempt, path: Path) -> tuple[ModelAnswer, Body]:
    if attempt.provider.name == "openai":
        return await _ask_openai(attempt, path)
    return await path.ask_chat(attempt)


async def _ask_openai(attempt: Attempt, path: Path) -> tuple[ModelAnswer, Body]:
    """Use OpenAI Responses, or chat completions where asked for or where the server has nothing else."""
    base_url = attempt.endpoint.base_url
    if attempt.request.provider_llm_api == "chat_completions" or base_url in attempt.pool.chat_only_base_urls:
        return await path.ask_chat(attempt)
    try:
        return await path.ask_responses(attempt)
    except Exception as error:
        if not _lacks_responses(error, attempt.call):
            raise
    attempt.pool.chat_only_base_urls[base_url] = True
    return await path.ask_chat(attempt)


def _lacks_responses(error: Exception, call: Call) -> bool:
    """Whether the server does not know the Responses API at all, rather than not the model."""
    response = error_response(error, call)
    if response is None or response.status_code not in (404, 405):
        return False
    return error_code(response) != "model_not_found" and call.model not in response.text
