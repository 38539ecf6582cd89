"""The providers polos comes with, as objects with the interface of `LLMProvider`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from polos.models.call import generate
from polos.models.interface import LLMProvider, LLMResponse
from polos.models.providers import added_provider, check_provider
from polos.models.request import Chunk, ModelAnswer, ModelRequest

_DONE = object()


def get_provider(name: str, **kwargs: Any) -> LLMProvider:
    """Return the provider called `name`, one of ours or of the user's own.

    Args:
        name: As of `Agent`, in any case.
        kwargs: For the class: ``base_url``, ``llm_api``; for ours ``api_key`` too.

    Raises:
        ValueError: There is no such provider.
    """
    key = check_provider(name)
    added: type[LLMProvider] | None = added_provider(key)
    return BuiltInProvider(key, **kwargs) if added is None else added(**kwargs)


class BuiltInProvider(LLMProvider):
    """One of our providers. What a call raises is a `ModelError`.

    Args:
        name: Its name.
        base_url: URL of its API, instead of its public one.
        llm_api: OpenAI only: ``responses`` or ``chat_completions``.
        api_key: Instead of its environment variable.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        llm_api: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self.name = name
        self.base_url = base_url
        self.llm_api = llm_api
        self._api_key = api_key

    async def generate(
        self, messages: list[dict[str, Any]], model: str, *args: Any, **options: Any
    ) -> LLMResponse:
        """Answer one call, in one attempt."""
        request = self._request(messages, model, *args, **options)
        return _response(request, await generate(request))

    async def stream(
        self, messages: list[dict[str, Any]], model: str, *args: Any, **options: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the answer in pieces, as it comes."""
        request = self._request(messages, model, *args, **options)
        pieces: asyncio.Queue[Any] = asyncio.Queue()
        calling = asyncio.ensure_future(generate(request, on_chunk=pieces.put_nowait))
        calling.add_done_callback(lambda _: pieces.put_nowait(_DONE))
        try:
            while (piece := await pieces.get()) is not _DONE:
                yield _event(piece)
            answer = _response(request, await calling)
            told = {"content": answer.content, "usage": answer.usage, "model": answer.model}
            ending = {"stop_reason": answer.stop_reason, "raw_output": answer.raw_output}
            yield {"type": "done", "data": {**told, **ending}}
        finally:
            calling.cancel()

    def _request(
        self,
        messages: list[dict[str, Any]],
        model: str,
        tools: list[dict[str, Any]] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        agent_config: dict[str, Any] | None = None,
        tool_results: list[dict[str, Any]] | None = None,
        output_schema: dict[str, Any] | None = None,
        output_schema_name: str | None = None,
        **kwargs: Any,
    ) -> ModelRequest:
        key = {"api_key": self._api_key} if self._api_key else {}
        return ModelRequest(
            provider=self.name,
            model=model,
            messages=[*messages, *(tool_results or ())],
            system_prompt=(agent_config or {}).get("system_prompt"),
            tools=tools or [],
            temperature=temperature,
            max_output_tokens=max_tokens,
            top_p=top_p,
            provider_base_url=self.base_url,
            provider_llm_api=self.llm_api,
            provider_kwargs={**key, **kwargs},
            output_schema=output_schema,
            output_schema_name=output_schema_name,
        )


def _event(piece: Chunk) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"type": "text_delta", "data": {"content": piece}}
    return {"type": "tool_call", "data": {"tool_call": piece.model_dump()}}


def _response(request: ModelRequest, answer: ModelAnswer) -> LLMResponse:
    return LLMResponse(
        content=answer.content,
        usage=answer.usage.model_dump(),
        tool_calls=[call.model_dump() for call in answer.tool_calls] or None,
        raw_output=[*request.messages, *answer.raw_output],
        model=answer.model,
        stop_reason=answer.stop_reason,
    )
