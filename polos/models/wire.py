"""LiteLLM's entry points, and the HTTP connections its calls use."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
import openai

from polos.models.catalog import litellm_provider
from polos.models.library import AsyncHTTPHandler, is_internal_call, litellm
from polos.models.providers import Endpoint
from polos.models.streams.reading import Refused, Streamed, send_streamed
from polos.models.streams.translated import read_translated

Body = dict[str, Any]
BeforeSend = Callable[[], Awaitable[None]]

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


@dataclass
class Exchange:
    """What happens on the network during one call.

    Attributes:
        before_send: Awaited when a connection stands, immediately before the request goes out.
        streamed: Who is told of the pieces of the answer; None asks for it whole.
        answered: Whether a successful answer has arrived, or begun to.
    """

    before_send: BeforeSend | None = None
    streamed: Streamed | None = None
    answered: bool = False


_exchange: ContextVar[Exchange | None] = ContextVar("polos_model_exchange", default=None)


class ObservedClient(httpx.AsyncClient):
    """An HTTP client that keeps to the `Exchange` of the call it is used in."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._refused: Refused = {}

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send `request`; a streamed answer is passed on as it comes, and returned whole."""
        if (exchange := _exchange.get()) is None:
            return await super().send(request, **options)
        if exchange.before_send is not None:
            request.extensions = {**request.extensions, "trace": _gate(exchange.before_send)}
        if exchange.streamed is None:
            return await self._send(request, exchange, **options)
        send = partial(self._send, exchange=exchange, **{**options, "stream": True})
        return await send_streamed(send, request, exchange.streamed, refused=self._refused)

    async def _send(self, request: httpx.Request, exchange: Exchange, **options: Any) -> httpx.Response:
        response = await super().send(request, **options)
        exchange.answered |= response.is_success
        return response


def _gate(before_send: BeforeSend) -> Callable[[str, Body], Awaitable[None]]:
    """Return a trace function for httpcore, which awaits it at each stage of a request."""

    async def trace(stage: str, _: Body) -> None:
        if stage.endswith(".send_request_headers.started"):
            await before_send()

    return trace


@dataclass
class Connections:
    """The HTTP connections of one event loop, kept open between calls, and what was learned about servers."""

    http: ObservedClient
    sdk_clients: dict[tuple[str, Endpoint], openai.AsyncOpenAI] = field(default_factory=dict)
    chat_only_base_urls: set[str | None] = field(default_factory=set)
    refused_schemas: set[tuple[str | None, str, str]] = field(default_factory=set)
    """Base URL, model and output schema that is asked for in the prompt instead."""
    closer: AsyncIterator[None] | None = None

    def sdk_client(self, provider: str, endpoint: Endpoint) -> openai.AsyncOpenAI:
        """Return the OpenAI client LiteLLM uses for this provider."""
        key = (provider, endpoint)
        if key not in self.sdk_clients:
            build = _azure_client if provider == "azure" else _openai_client
            self.sdk_clients[key] = build(endpoint, self.http)
        return self.sdk_clients[key]

    def litellm_client(self, model: str, endpoint: Endpoint) -> openai.AsyncOpenAI | Handler | None:
        """Return what LiteLLM should send a model of its own naming with; None lets it use its own client."""
        _, provider, api_key, base_url = litellm.get_llm_provider(
            model, api_base=endpoint.base_url, api_key=endpoint.api_key
        )
        if provider in _TAKE_A_HANDLER:
            return Handler(self.http)
        if provider not in _TAKE_AN_SDK_CLIENT:
            return None
        if provider == "openai":
            api_key, base_url = endpoint.api_key or os.environ.get("OPENAI_API_KEY"), endpoint.base_url
        found = replace(endpoint, api_key=api_key, base_url=base_url)
        return self.sdk_client(provider, found) if api_key else None


# Keyed by loop because connections belong to one; a process has no better place that every caller shares.
_connections: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Connections] = weakref.WeakKeyDictionary()


async def connections() -> Connections:
    """Return the running loop's connections; they are closed when the loop shuts down."""
    loop = asyncio.get_running_loop()
    if (found := _connections.get(loop)) is None or found.http.is_closed:
        found = open_connections(_http_client())
        found.closer = _close_with_loop(found.http)
        await anext(found.closer)
    return found


def open_connections(http: ObservedClient) -> Connections:
    """Make `http` what calls on the running loop use, and return it with nothing learned yet."""
    opened = _connections[asyncio.get_running_loop()] = Connections(http=http)
    return opened


async def close_connections() -> None:
    """Close the running loop's connections; the next call opens new ones."""
    if (found := _connections.pop(asyncio.get_running_loop(), None)) is not None:
        await found.http.aclose()


async def _close_with_loop(http: httpx.AsyncClient) -> AsyncIterator[None]:
    # A loop closes its unfinished async generators when it shuts down: the only hook it has.
    try:
        yield
    finally:
        await http.aclose()


def _http_client() -> ObservedClient:
    return ObservedClient(
        verify=tls_context(),
        follow_redirects=True,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # keys of several tenants share it
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=30),
    )


@cache
def tls_context() -> ssl.SSLContext:
    """Return what verifies providers' certificates; reading them takes 50 ms, so once per process."""
    return httpx.create_ssl_context()


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
    tokens = _exchange.set(exchange), is_internal_call.set(not _has_callbacks())
    try:
        if exchange.streamed is not None and "client" not in arguments:
            return await _stream(function, exchange, arguments)
        answer = await function(**arguments, num_retries=0, max_retries=0)
        return answer.model_dump()  # type: ignore[no-any-return] # LiteLLM is untyped
    finally:
        is_internal_call.reset(tokens[1])
        _exchange.reset(tokens[0])
        await asyncio.sleep(0)  # lets a bookkeeping task of LiteLLM end, so that none outlives the loop


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


def _has_callbacks() -> bool:
    """Whether the user has LiteLLM report calls; otherwise its bookkeeping, a third of a call, is skipped."""
    lists = (
        "callbacks",
        "success_callback",
        "failure_callback",
        "_async_success_callback",
        "_async_failure_callback",
    )
    # "cache" is what LiteLLM's Gemini code adds for itself.
    return any(entry != "cache" for name in lists for entry in getattr(litellm, name, ()))
