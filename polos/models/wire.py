"""LiteLLM's entry points, given our HTTP connections."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import httpx
import openai

from polos.models.callbacks import has_callbacks
from polos.models.catalog import litellm_provider
from polos.models.connections import Body, Connections, Exchange, exchanging
from polos.models.library import AsyncHTTPHandler, is_internal_call, litellm
from polos.models.providers import Endpoint
from polos.models.streams.translated import read_translated

# Providers of LiteLLM's naming that it calls through the HTTP handler it is given, not a client of its own.
_TAKE_A_HANDLER = frozenset(
    (
        "anthropic",
        "deepseek",
        "fireworks_ai",
        "gemini",
        "groq",
        "hosted_vllm",
        "mistral",
        "ollama_chat",
        "openrouter",
        "together_ai",
        "xai",
    )
)
# And those it calls through the OpenAI client it is given.
_TAKE_AN_SDK_CLIENT = frozenset(
    (
        "cerebras",
        "dashscope",
        "deepinfra",
        "lm_studio",
        "moonshot",
        "nebius",
        "novita",
        "nvidia_nim",
        "openai",
        "perplexity",
        "sambanova",
    )
)


def sdk_client(pool: Connections, provider: str, endpoint: Endpoint) -> openai.AsyncOpenAI:
    """Return the OpenAI client LiteLLM uses for this provider."""
    key = (provider, endpoint)
    build = _azure_client if provider == "azure" else _openai_client
    found: openai.AsyncOpenAI = pool.sdk_clients.get_or_make(key, lambda: build(endpoint, pool.http))
    return found


def litellm_client(pool: Connections, model: str, endpoint: Endpoint) -> openai.AsyncOpenAI | Handler | None:
    """Return what LiteLLM should send a model of its own naming with; None lets it use its own client."""
    _, provider, api_key, base_url = litellm.get_llm_provider(
        model, api_base=endpoint.base_url, api_key=endpoint.api_key
    )
    if provider in _TAKE_A_HANDLER:
        return Handler(pool.http)
    if provider not in _TAKE_AN_SDK_CLIENT:
        return None
    if provider == "openai":
        api_key, base_url = endpoint.api_key or os.environ.get("OPENAI_API_KEY"), endpoint.base_url
    found = replace(endpoint, api_key=api_key, base_url=base_url)
    return sdk_client(pool, provider, found) if api_key else None


class _OneAttempt:
    """An OpenAI client that never sends again, although LiteLLM raises the number after it was set."""

    @property
    def max_retries(self) -> int:
        return 0

    @max_retries.setter
    def max_retries(self, _: int) -> None:
        """Keep to none."""


class _OpenAI(_OneAttempt, openai.AsyncOpenAI):
    pass


class _AzureOpenAI(_OneAttempt, openai.AsyncAzureOpenAI):
    pass


# `http`: the client takes those of httpx and of httpx2, and says in its types only what is installed.
def _openai_client(endpoint: Endpoint, http: Any) -> openai.AsyncOpenAI:
    return _OpenAI(api_key=endpoint.api_key, base_url=endpoint.base_url, http_client=http)


def _azure_client(endpoint: Endpoint, http: Any) -> openai.AsyncOpenAI:
    return _AzureOpenAI(
        api_key=endpoint.api_key,
        azure_endpoint=endpoint.base_url or "",
        api_version=endpoint.api_version or litellm.AZURE_DEFAULT_API_VERSION,
        http_client=http,
    )


class Handler(AsyncHTTPHandler):  # type: ignore[misc] # LiteLLM is untyped
    """The HTTP handler LiteLLM is given for one call: one attempt, and the last word on the body.

    LiteLLM's own sends a request again when the connection breaks, although the provider may have
    charged for the first; here the step that wants the answer decides about another attempt.

    Args:
        amend: Returns the JSON body to send instead of LiteLLM's.
    """

    def __init__(self, http: httpx.AsyncClient, *, amend: Callable[[Body], Body] | None = None) -> None:
        self.timeout = None
        self.event_hooks = None
        self._client = http
        self._owns_client = False
        self._amend = amend or (lambda body: body)

    async def post(
        self,
        url: str,
        data: Body | str | bytes | None = None,
        json: Body | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | httpx.Timeout | None = None,
        stream: bool = False,
        **_: Any,
    ) -> httpx.Response:
        """Send one request; a status of 400 or more raises `httpx.HTTPStatusError`."""
        request = self._client.build_request(
            "POST",
            url,
            json=self._amend(json if json is not None else _decoded(data)),
            params=params,
            headers=httpx.Headers({**httpx.Headers(headers), "content-type": "application/json"}),
            timeout=timeout,
        )
        response = await self._client.send(request, stream=stream)
        if response.is_error:
            await response.aread()
            response.raise_for_status()
        return response


def _decoded(data: Body | str | bytes | None) -> Body:
    body: Body = json.loads(data) if isinstance(data, str | bytes) else data or {}
    return body


async def complete(exchange: Exchange, **arguments: Any) -> Body:
    """Call LiteLLM's chat completion once and return the answer as a dict."""
    return await _call(litellm.acompletion, exchange, arguments)


async def respond(exchange: Exchange, **arguments: Any) -> Body:
    """Call LiteLLM's OpenAI Responses once and return the answer as a dict."""
    return await _call(litellm.aresponses, exchange, arguments)


async def _call(function: Callable[..., Any], exchange: Exchange, arguments: Body) -> Body:
    # Nobody listens: its bookkeeping, a third of a call, is skipped.
    token = is_internal_call.set(not has_callbacks())
    try:
        with exchanging(exchange):
            return await _sent(function, exchange, arguments)
    finally:
        is_internal_call.reset(token)
        await asyncio.sleep(0)  # lets a bookkeeping task of LiteLLM end, so that none outlives the loop


async def _sent(function: Callable[..., Any], exchange: Exchange, arguments: Body) -> Body:
    if exchange.streamed is not None and "client" not in arguments:
        return await _stream(function, exchange, arguments)
    answer = await function(**arguments, num_retries=0, max_retries=0)
    return answer.model_dump()  # type: ignore[no-any-return] # LiteLLM is untyped


async def _stream(function: Callable[..., Any], exchange: Exchange, arguments: Body) -> Body:
    """Have LiteLLM stream: it uses a client of its own, so that we do not see the answer come."""
    assert exchange.streamed is not None
    options: Body = {"stream": True, "stream_options": {"include_usage": True}, **arguments}
    if litellm_provider(options["model"]) in litellm.openai_compatible_providers:
        # Else LiteLLM leaves it out, and guesses the usage.
        options["allowed_openai_params"] = [*options.get("allowed_openai_params", ()), "stream_options"]
    stream = await function(**options, num_retries=0, max_retries=0)
    exchange.answered = True
    return await read_translated(stream, exchange.streamed)
