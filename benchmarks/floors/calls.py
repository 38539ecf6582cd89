"""Floors of a model call: an HTTP client that is told everything, and LiteLLM by itself."""

from __future__ import annotations

import os
from typing import Any

import httpx

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

BODY: dict[str, Any] = {
    "model": "the-model",
    "messages": [{"role": "system", "content": "script-0-0-0"}, {"role": "user", "content": "hello"}],
}


class RawCalls:
    """The HTTP client that polos uses, too, with the body at hand."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/chat/completions"
        self._http = httpx.AsyncClient()

    async def __call__(self) -> None:
        """Ask once."""
        response = await self._http.post(self._url, json=BODY)
        response.raise_for_status()
        assert response.json()["choices"]

    async def close(self) -> None:
        """Close its connection."""
        await self._http.aclose()


class LiteLLMCalls:
    """LiteLLM as a program would call it."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __call__(self) -> None:
        """Ask once."""
        import litellm

        answer = await litellm.acompletion(
            model="openai/the-model", messages=BODY["messages"], api_base=self._url, api_key="none"
        )
        assert answer.choices

    async def close(self) -> None:
        """Leave its clients to the end of the process."""
