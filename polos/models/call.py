"""The entrance of this room: one model call, by the leanest way that knows it; LiteLLM only if needed."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from polos.errors import ModelError
from polos.model_path import LEAN, LITELLM, VARIABLE, chosen_model_path
from polos.models.callbacks import has_callbacks
from polos.models.permission import check_allowed, forbids_all
from polos.models.providers import (
    PROVIDERS,
    Provider,
    added_provider,
    check_llm_api,
    check_provider,
    find_endpoint,
)
from polos.models.request import Chunk, ModelAnswer, ModelRequest
from polos.price_list import has_price_list
from polos.types import Usage

logger = logging.getLogger("polos.models")

# One thread loads at a time. Modules are per process, so what guards their loading is too.
_loading = threading.Lock()


async def generate(
    request: ModelRequest,
    *,
    before_send: Callable[[], Awaitable[None]] | None = None,
    on_chunk: Callable[[Chunk], None] | None = None,
) -> ModelAnswer:
    """Return the model's answer to `request`, the same whether it is streamed or not.

    One attempt: nothing below retries, so whoever repeats a call knows how often it was made. Cancelling it
    closes the connection, so that the provider stops.

    Args:
        request: The whole call.
        before_send: Awaited immediately before the request goes out, after everything that takes time
            (loading LiteLLM, connecting): the last moment at which a caller can hold it back. LiteLLM's own
            clients, used for a few providers of its naming, do not know it.
        on_chunk: Has the answer streamed, and is told of each piece in order, in the running loop: it must
            not block. The texts add up to the answer's content, the tool calls are the answer's. Where a
            server does not stream, everything comes at the end. After an error, what was told is void.
            What it raises ends the call, as it is.

    Raises:
        ModelError: The provider refused, failed, took too long or answered nothing usable.
            `retryable` and `retry_after_seconds` say whether and when to ask again.
        MissingCredentialError: The provider's key is not set.
        ValueError: There is no such provider or `provider_llm_api`.
        ModelRequestForbiddenError: A test of this process forbids it.
    """
    name = check_provider(request.provider)
    if (added := added_provider(name)) is not None:
        check_allowed(name, request.model, request.provider_base_url)
        return await _ask_added(name, added, request, before_send, on_chunk)
    provider = PROVIDERS[name]
    check_llm_api(request.provider_llm_api)
    options = dict(request.provider_kwargs)
    endpoint = find_endpoint(
        provider,
        request.model,
        base_url=options.pop("base_url", None) or options.pop("api_base", None) or request.provider_base_url,
        api_key=options.pop("api_key", None),
        api_version=options.pop("api_version", None),
    )
    check_allowed(provider.name, request.model, endpoint.base_url)
    path = await _path(provider, request)
    answer: ModelAnswer = await _asking().ask(
        request,
        provider,
        path=path,
        endpoint=endpoint,
        options=options,
        before_send=before_send,
        on_chunk=on_chunk,
    )
    return answer


async def _path(provider: Provider, request: ModelRequest) -> ModuleType:
    """Return the way this call goes out, with what it needs imported."""
    chosen = chosen_model_path()
    if chosen != LITELLM and not has_callbacks():
        if "polos.models.lean" not in sys.modules:
            await asyncio.to_thread(_lean)
        if _lean().serves(provider, request):
            return _lean()
    if chosen == LEAN:
        raise ModelError(
            f"{VARIABLE}=lean does not know this call to {provider.name}; leave it out, or set it to auto",
            provider=provider.name,
            model=request.model,
        )
    return await _loaded()


async def _ask_added(
    name: str,
    provider: type[Any],
    request: ModelRequest,
    before_send: Callable[[], Awaitable[None]] | None,
    on_chunk: Callable[[Chunk], None] | None,
) -> ModelAnswer:
    from polos.models.added import ask_added  # noqa: PLC0415 - imports an HTTP client, which clients never need

    answer = await ask_added(name, provider, request, before_send=before_send, on_chunk=on_chunk)
    if answer.usage.cost is not None or not has_price_list():
        return answer
    await _loaded()
    usage = answer.usage.model_copy(update={"cost": cost(name, request.model, answer.usage)})
    return answer.model_copy(update={"usage": usage})


def preload(requests: Iterable[ModelRequest] | None = None) -> None:
    """Import what `requests`, or any, are made with, so that the first call does not wait for it.

    LiteLLM blocks for seconds. Meant for a background thread of a worker that has just started; not a daemon,
    see `_loaded`. Also makes one pretended call of each kind, because LiteLLM imports half a second's worth
    of modules with its first ones, unless the program has ended meanwhile. Calls wait until that is done: a
    module that two threads import at once is seen half made, and the answer to a call that was paid for
    would be lost.

    Args:
        requests: Such as will be made, without messages.
    """
    if requests is not None and all(_is_lean(request) for request in requests):
        _lean().warm_up()
        return
    with _loading:
        _warm()


def _is_lean(request: ModelRequest) -> bool:
    provider = PROVIDERS.get(request.provider.strip().lower())
    if provider is None or chosen_model_path() == LITELLM or has_callbacks():
        return provider is None  # one of the user's own needs nothing of ours
    return bool(_lean().serves(provider, request))


def cost(provider: str, model: str, usage: Usage) -> float | None:
    """Return what a call with these tokens costs in US dollars, None without a known price; after `ready`.

    The few prices that only LiteLLM can tell have it imported.
    """
    try:
        return _cost(provider, model, usage)
    except _prices().NeedsLiteLLMError:
        _through_litellm()
        return _cost(provider, model, usage)


def _cost(provider: str, model: str, usage: Usage) -> float | None:
    name, found = check_provider(provider), None
    if name in PROVIDERS:
        found = _prices().call_cost(PROVIDERS[name], model, usage)
    elif has_price_list():
        found = _prices().own_cost(name, model, usage)
    return found


async def ready(request: ModelRequest) -> None:
    """Return once this call goes out at once, and `cost` can price it, without waiting for imports."""
    if forbids_all():
        return
    name = check_provider(request.provider)
    if (provider := PROVIDERS.get(name)) is not None:
        await _path(provider, request)
    elif has_price_list():
        await _loaded()


async def close() -> None:
    """Close the connections the running loop holds to providers; a later call opens new ones.

    Needed only by a loop that is not shut down by `asyncio.run` or a runner.
    """
    if "polos.models.connections" in sys.modules:
        await _asking().close_connections()


async def _loaded() -> ModuleType:
    if _loading.locked() or not _is_warm():
        # Not a daemon: one that the end of the program freezes in an import keeps that module's lock, and
        # LiteLLM's objects import when they are destroyed. The program would never end.
        loader = threading.Thread(target=preload, name="polos-litellm", daemon=False)
        loader.start()
        await asyncio.to_thread(loader.join)
    return _through_litellm()


def _is_warm() -> bool:
    return _warm.cache_info().currsize == 1


@cache
def _warm() -> None:
    _through_litellm()
    if not threading.main_thread().is_alive():
        return
    from polos.models.warmup import warm_up  # noqa: PLC0415 - imports LiteLLM

    try:
        warm_up()
    except Exception:
        if threading.main_thread().is_alive():  # else the program ended, which broke the pretended calls
            logger.exception("LiteLLM could not be warmed up; the first calls take longer")


# Imported when they are needed: LiteLLM takes seconds, an HTTP client 0.2, and clients need neither.


@cache
def _through_litellm() -> ModuleType:
    return import_module("polos.models.through_litellm")


@cache
def _lean() -> ModuleType:
    return import_module("polos.models.lean")


@cache
def _asking() -> ModuleType:
    return import_module("polos.models.asking")


@cache
def _prices() -> ModuleType:
    return import_module("polos.models.prices")
