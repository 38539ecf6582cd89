"""Calls that we make ourselves: for the formats most turns use, at a fraction of what LiteLLM takes for one.

What goes out and what is read is the same either way; tests compare them. `serves` says which calls are known
well enough.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import httpx

from polos.models import anthropic, anthropic_wire
from polos.models.answers import from_chat, from_responses
from polos.models.attempt import Attempt
from polos.models.catalog import max_output_tokens
from polos.models.connections import Body, exchanging, tls_context
from polos.models.fields import (
    may_think_aloud,
    merged,
    messages,
    responses_fields,
    sampling,
    split_tools,
    token_limit,
)
from polos.models.messages import chat_tools, failed_call_ids, responses_input
from polos.models.providers import Provider, Wire
from polos.models.request import ModelAnswer, ModelRequest

_PUBLIC: Mapping[str, str] = {
    "anthropic": "https://api.anthropic.com",
    "groq": "https://api.groq.com/openai/v1",
    "openai": "https://api.openai.com/v1",
    "together": "https://api.together.xyz/v1",
}
# OpenAI's chat completions take other words for these, and some options not at all: LiteLLM knows which.
_REASONS = re.compile(r"^(o\d|gpt-5)")
# Words of servers that are not OpenAI's.
_STOP_REASONS: Mapping[str, str] = {
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "error": "stop",
}


def serves(provider: Provider, request: ModelRequest) -> bool:
    """Whether a call may go this way."""
    if provider.name not in _PUBLIC:
        return False
    if provider.name == "openai":
        return request.provider_llm_api != "chat_completions" or not _REASONS.match(request.model)
    if provider.wire is Wire.ANTHROPIC:  # its own tools want headers of their own, files another form
        return all(tool.get("type") == "function" for tool in request.tools) and not _has_files(request)
    return True


def _has_files(request: ModelRequest) -> bool:
    contents = (item.get(name) for item in request.messages for name in ("content", "output"))
    blocks = (block for content in contents if isinstance(content, list) for block in content)
    return any(isinstance(block, dict) and block.get("type") in ("file", "input_file") for block in blocks)


def warm_up() -> None:
    """Do what the first call would wait for: certificates and the table of models take 0.2 s to read."""
    tls_context()
    max_output_tokens("none")


async def ask_chat(attempt: Attempt) -> tuple[ModelAnswer, Body]:
    """Ask as the provider's own API wants it."""
    if attempt.provider.wire is Wire.ANTHROPIC:
        return await _ask_anthropic(attempt)
    body = await _post(attempt, "/chat/completions", _chat_body(attempt), _bearer(attempt))
    answer = from_chat(body, attempt.call_ids(), thinks_aloud=may_think_aloud(attempt))
    return answer.model_copy(update={"stop_reason": _stop_reason(answer)}), body


async def ask_responses(attempt: Attempt) -> tuple[ModelAnswer, Body]:
    """Ask OpenAI's Responses API."""
    request = attempt.request
    asked: Body = {"model": _model(attempt), "input": responses_input(request.messages)}
    body = await _post(attempt, "/responses", merged(asked, responses_fields(attempt)), _bearer(attempt))
    return from_responses(body, attempt.call_ids()), body


async def _ask_anthropic(attempt: Attempt) -> tuple[ModelAnswer, Body]:
    request, options, schema = attempt.request, attempt.options, attempt.schema_fields()
    limit = request.max_output_tokens or anthropic.default_max_tokens(
        max_output_tokens(attempt.litellm_model), options.get("thinking")
    )
    functions, _ = split_tools(request.tools)
    asked = anthropic_wire.asked(messages(attempt, schema), functions)
    asked = {"model": _model(attempt), **asked, "max_tokens": options.get("max_tokens", limit)}
    anthropic.mark_failed_tools(asked, failed_call_ids(request.messages))
    anthropic.mark_for_caching(asked)
    asked = merged(merged(asked, schema), {**sampling(request), **options})
    headers = {"x-api-key": attempt.endpoint.api_key or "", "anthropic-version": anthropic_wire.VERSION}
    body = anthropic_wire.as_chat(await _post(attempt, "/v1/messages", asked, headers))
    return from_chat(body, attempt.call_ids()), body


def _chat_body(attempt: Attempt) -> Body:
    request, schema = attempt.request, attempt.schema_fields()
    tools = {"tools": chat_tools(request.tools)} if request.tools else {}
    said = [_plain_message(message) for message in messages(attempt, schema)]
    asked = {"model": _model(attempt), "messages": said, **token_limit(attempt)}
    return merged(asked, {**tools, **sampling(request), **schema, **attempt.options})


def _plain_message(message: Body) -> Body:
    """Return a message without what other providers left in it."""
    kept = {name: value for name, value in message.items() if value is not None and name not in _OTHERS}
    if calls := message.get("tool_calls"):
        kept["tool_calls"] = [{name: call[name] for name in call if name != _OWN} for call in calls]
    return kept


_OWN = "provider_specific_fields"
_OTHERS = ("thinking_blocks", _OWN)


def _model(attempt: Attempt) -> str:
    return attempt.request.model.removeprefix(attempt.provider.prefix)


def _stop_reason(answer: ModelAnswer) -> str | None:
    """Return why the answer ends; some servers say that they stopped where they called tools."""
    found = _STOP_REASONS.get(answer.stop_reason or "", answer.stop_reason)
    return "tool_calls" if found == "stop" and answer.tool_calls else found


def _bearer(attempt: Attempt) -> dict[str, str]:
    return {"authorization": f"Bearer {attempt.endpoint.api_key}"}


async def _post(attempt: Attempt, path: str, body: Body, headers: dict[str, str]) -> Any:
    """Return the JSON of a successful answer.

    Raises:
        httpx.HTTPStatusError: The provider refused.
        httpx.TransportError: It was not reached, or the connection broke.
        ValueError: What came is no JSON object.
    """
    http = attempt.pool.http
    url = (attempt.endpoint.base_url or _PUBLIC[attempt.provider.name]).rstrip("/") + path
    headers = {"accept": "application/json", "user-agent": "polos", **headers, **attempt.headers}
    request = http.build_request(
        "POST", url, json=body, headers=headers, timeout=attempt.request.timeout_seconds
    )
    with exchanging(attempt.exchange):
        response = await http.send(request)
    response.raise_for_status()
    return _object(response)


def _object(response: httpx.Response) -> Body:
    found = json.loads(response.content)
    if not isinstance(found, dict):
        raise ValueError(f"the answer is no JSON object but {response.text[:80]!r}")
    return found
