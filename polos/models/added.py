"""Calls to providers of the user's own: our conversation in their arguments, their answer in our form."""

from __future__ import annotations

import asyncio
import json
import sys
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from polos.errors import ModelError
from polos.models.answers import CallIds, tool_call
from polos.models.delivery import Delivery
from polos.models.estimates import completed_usage, written_in
from polos.models.failures import (
    Call,
    broken_answer_error,
    cut_answer_error,
    reported_error,
    timeout_error,
    unusable_answer_error,
)
from polos.models.interface import LLMProvider, LLMResponse
from polos.models.messages import known_call_ids
from polos.models.request import Chunk, Item, ModelAnswer, ModelRequest
from polos.types import Usage

_CONFIG = (
    "provider",
    "model",
    "tools",
    "system_prompt",
    "max_output_tokens",
    "temperature",
    "top_p",
    "provider_base_url",
    "provider_llm_api",
    "output_schema",
    "output_schema_name",
)

# A provider holds connections, which belong to a loop.
_instances: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Any, LLMProvider]] = (
    weakref.WeakKeyDictionary()
)


async def ask_added(
    name: str,
    provider: type[LLMProvider],
    request: ModelRequest,
    *,
    before_send: Callable[[], Awaitable[None]] | None,
    on_chunk: Callable[[Chunk], None] | None,
) -> ModelAnswer:
    """Return the answer of a provider of the user's own; see `polos.models.call.generate`."""
    call = Call(name, request.model, timeout_seconds=request.timeout_seconds, handled=sys.exception())
    delivery = Delivery(on_chunk, known_call_ids(request.messages)) if on_chunk else None
    instance = _instance(provider, request)
    if before_send is not None:
        await before_send()
    try:
        async with asyncio.timeout(request.timeout_seconds):
            response = await _ask(instance, request, call, delivery)
    except ModelError:
        raise
    except TimeoutError as error:
        raise timeout_error(call) from error
    except Exception as error:
        if delivery and delivery.raised:
            raise delivery.raised from None
        raise reported_error(error, call) from error
    try:
        return _answer(response, request, call, delivery)
    except (AttributeError, KeyError, TypeError) as error:
        raise broken_answer_error(call, f"the answer cannot be read ({error}): {response!r}") from error


def _instance(provider: type[LLMProvider], request: ModelRequest) -> LLMProvider:
    options = {"base_url": request.provider_base_url, "llm_api": request.provider_llm_api}
    given = {name: value for name, value in options.items() if value is not None}
    known = _instances.setdefault(asyncio.get_running_loop(), {})
    key = (provider, *sorted(given.items()))
    if key not in known:
        known[key] = provider(**given)
    return known[key]


async def _ask(
    provider: LLMProvider, request: ModelRequest, call: Call, delivery: Delivery | None
) -> LLMResponse:
    arguments = _arguments(provider, request)
    if delivery is not None:
        return await _stream(provider, arguments, request, call, delivery)
    response: Any = await provider.generate(**arguments)
    if not isinstance(response, LLMResponse):
        raise broken_answer_error(call, f"generate() must return an LLMResponse, not {response!r}")
    return response


def _arguments(provider: LLMProvider, request: ModelRequest) -> Item:
    history, results = _split(request.messages)
    config = request.model_dump(mode="json", include=set(_CONFIG))
    return {
        **request.provider_kwargs,
        "messages": provider.convert_history_messages(history),
        "model": request.model,
        "tools": request.tools or None,
        "temperature": request.temperature,
        "max_tokens": request.max_output_tokens,
        "top_p": request.top_p,
        "agent_config": config,
        "tool_results": results or None,
        "output_schema": request.output_schema,
        "output_schema_name": request.output_schema_name,
    }


def _split(items: list[Item]) -> tuple[list[Item], list[Item]]:
    """Return the conversation, and the outputs of tools at its end."""
    end = len(items)
    while end and items[end - 1].get("type") == "function_call_output":
        end -= 1
    return [dict(item) for item in items[:end]], [dict(item) for item in items[end:]]


async def _stream(
    provider: LLMProvider, arguments: Item, request: ModelRequest, call: Call, delivery: Delivery
) -> LLMResponse:
    """Pass the pieces on, and return the whole that they add up to."""
    texts: list[str] = []
    calls: list[Item] = []
    async with aclosing(_pieces(provider, arguments, request, call)) as pieces:
        async for kind, data in pieces:
            match kind:
                case "text_delta":
                    texts.append(data.get("content") or data.get("text") or "")
                    delivery.text(texts[-1])
                case "tool_call":
                    calls.append(data.get("tool_call") or data)
                    delivery.call(_call_item(calls[-1]))
                case "error":
                    said = data.get("error") or data
                    raise cut_answer_error(call, f"the provider broke off its stream: {said}")
                case "done":
                    return _whole(data, texts, calls)
    raise cut_answer_error(call, "the stream ended without a 'done' event")


async def _pieces(
    provider: LLMProvider, arguments: Item, request: ModelRequest, call: Call
) -> AsyncGenerator[tuple[Any, Item], None]:
    """Yield type and data of each piece; a silence is an error."""
    stream = provider.stream(**arguments)
    pieces = aiter(stream)
    try:
        while True:
            async with asyncio.timeout(request.chunk_timeout_seconds):
                piece = await anext(pieces)
            yield piece.get("type"), piece.get("data") or {}
    except StopAsyncIteration:
        return
    except TimeoutError as error:
        text = f"the stream was silent for {request.chunk_timeout_seconds:g} seconds"
        raise cut_answer_error(call, text) from error
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


def _whole(data: Item, texts: list[str], calls: list[Item]) -> LLMResponse:
    return LLMResponse(
        content="".join(texts) or data.get("content"),
        usage=data.get("usage"),
        tool_calls=calls or data.get("tool_calls"),
        raw_output=data.get("raw_output"),
        model=data.get("model"),
        stop_reason=data.get("stop_reason"),
    )


def _call_item(given: Item) -> Item:
    """Return a tool call of the provider as a canonical item."""
    function = given.get("function") or {}
    arguments = function.get("arguments")
    return {
        "type": "function_call",
        "call_id": given.get("call_id") or given.get("id"),
        "name": function.get("name") or "",
        "arguments": arguments if isinstance(arguments, str) and arguments else json.dumps(arguments or {}),
    }


def _answer(
    response: LLMResponse, request: ModelRequest, call: Call, delivery: Delivery | None
) -> ModelAnswer:
    ids = delivery.call_ids() if delivery else CallIds(known_call_ids(request.messages))
    items = [_call_item(given) for given in response.tool_calls or ()]
    calls = [{**item, "call_id": ids.accept(item["call_id"])} for item in items]
    text = [{"role": "assistant", "content": response.content}] if response.content else []
    raw_output = [*_reasoning(response, request), *text, *calls]
    usage = _usage(response.usage or {}, call)
    answer = ModelAnswer(
        content=response.content or None,
        tool_calls=[tool_call(item) for item in calls],
        usage=usage
        if usage.total_tokens
        else completed_usage(usage, request, written=written_in(raw_output)),
        raw_output=raw_output,
        stop_reason=response.stop_reason or ("tool_calls" if calls else "stop"),
        model=response.model or request.model,
    )
    if (unusable := unusable_answer_error(call, answer)) is not None:
        unusable.usage = answer.usage
        raise unusable
    if delivery:
        delivery.complete(answer)
    return answer


def _reasoning(response: LLMResponse, request: ModelRequest) -> list[Item]:
    """Return the reasoning the provider wants to see again, without what it was sent itself."""
    said = (item for item in response.raw_output or () if isinstance(item, dict))
    return [item for item in said if item.get("type") == "reasoning" and item not in request.messages]


def _usage(given: Item, call: Call) -> Usage:
    renamed = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
    counts = {renamed.get(name, name): value for name, value in given.items() if value is not None}
    try:
        usage = Usage.model_validate({name: counts[name] for name in counts if name in Usage.model_fields})
    except ValueError as error:
        raise broken_answer_error(call, f"usage must hold numbers of tokens: {given!r}") from error
    total = usage.total_tokens or usage.input_tokens + usage.output_tokens
    return usage.model_copy(update={"total_tokens": total})
