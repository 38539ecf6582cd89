"""Pretended model calls, which make LiteLLM load what it would load during the first real ones."""

from __future__ import annotations

import asyncio

import httpx

from polos.models import through_litellm
from polos.models.asking import ask
from polos.models.connections import ObservedClient, close_connections, open_connections, tls_context
from polos.models.providers import PROVIDERS, Endpoint
from polos.models.request import ModelRequest

_ANSWERS = {
    "/v1/responses": {
        "id": "resp_0",
        "object": "response",
        "created_at": 0,
        "status": "completed",
        "model": "none",
        "output": [
            {
                "type": "message",
                "id": "msg_0",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "ok", "annotations": []}],
            }
        ],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
    },
    "/v1/chat/completions": {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": "none",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    },
    "/v1/messages": {
        "id": "msg_0",
        "type": "message",
        "role": "assistant",
        "model": "none",
        "content": [{"type": "text", "text": "ok"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
}
_TOOL = {
    "type": "function",
    "name": "none",
    "description": "",
    "parameters": {"type": "object", "properties": {}},
}


def warm_up() -> None:
    """Make one call of each kind on a loop of its own; nothing touches the network."""
    tls_context()
    asyncio.run(_warm_up())


async def _warm_up() -> None:
    open_connections(ObservedClient(transport=httpx.MockTransport(_answer)))
    try:
        await _ask("openai", "http://none/v1", "responses")
        await _ask("openai", "http://none/v1", "chat_completions")
        await _ask("anthropic", "http://none", None)
    finally:
        await close_connections()


async def _ask(provider: str, base_url: str, llm_api: str | None) -> None:
    request = ModelRequest(
        provider=provider,
        model="none",
        messages=[{"role": "user", "content": "hello"}],
        tools=[_TOOL],
        provider_llm_api=llm_api,
    )
    endpoint = Endpoint(api_key="none", base_url=base_url)
    await ask(request, PROVIDERS[provider], path=through_litellm, endpoint=endpoint, options={})


def _answer(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=_ANSWERS[request.url.path])
