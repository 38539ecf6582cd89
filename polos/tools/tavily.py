"""Web search by Tavily, over HTTP."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from polos.tools.search_results import WebSearchError, WebSearchOptions

KEY_VARIABLE = "TAVILY_API_KEY"
MAX_DETAIL_CHARACTERS = 500
_PASSING = frozenset({408, 409, 425, 429})


@dataclass
class TavilySearchConfig:
    """How Tavily is asked.

    Attributes:
        api_key: By default ``TAVILY_API_KEY`` of the worker.
        search_depth: ``advanced`` finds more, takes longer and costs more.
        include_answer: Let Tavily summarise what it finds.
        include_raw_content: Return whole pages, as ``rawContent``.
        base_url: Of another server that speaks Tavily's API.
        timeout_seconds: Of one request; by default ``POLOS_SEARCH_TIMEOUT_SECONDS``.
    """

    api_key: str | None = field(default=None, repr=False)
    search_depth: Literal["basic", "advanced"] = "basic"
    include_answer: bool = True
    include_raw_content: bool = False
    base_url: str = "https://api.tavily.com"
    timeout_seconds: float | None = field(default=None, kw_only=True)


async def search_tavily(
    config: TavilySearchConfig, query: str, options: WebSearchOptions, *, timeout_seconds: float
) -> Any:
    """Return Tavily's answer, as it gave it.

    Raises:
        WebSearchError: There is no key, or Tavily refused, failed, or did not answer in time.
    """
    key = config.api_key or os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise WebSearchError(
            f"Web search needs a key of Tavily: set {KEY_VARIABLE} for the workers, or give api_key= or a "
            "search= function of your own in WebSearchToolConfig"
        )
    body = {
        "query": query,
        "max_results": options.max_results,
        "search_depth": config.search_depth,
        "include_answer": config.include_answer,
        "include_raw_content": config.include_raw_content,
        "topic": options.topic,
    }
    url = f"{config.base_url.rstrip('/')}/search"
    seconds = config.timeout_seconds or timeout_seconds
    try:
        async with httpx.AsyncClient(timeout=seconds) as client:
            response = await client.post(url, json=body, headers={"Authorization": f"Bearer {key}"})
    except httpx.TimeoutException as error:
        raise WebSearchError(f"Web search: no answer within {seconds:g} seconds", retryable=True) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        problem = f"Web search: {config.base_url} cannot be asked ({error or type(error).__name__})"
        raise WebSearchError(problem, retryable=isinstance(error, httpx.TransportError)) from error
    return _data(response)


def _data(response: httpx.Response) -> Any:
    status = response.status_code
    if status != 200:
        hint = f". Check {KEY_VARIABLE}" if status in {401, 403} else ""
        raise WebSearchError(
            f"Web search failed: HTTP {status}: {_detail(response)}{hint}",
            retryable=status >= 500 or status in _PASSING,
        )
    try:
        return response.json()
    except ValueError as error:
        problem = f"Web search: the answer is no JSON: {response.text[:MAX_DETAIL_CHARACTERS]!r}"
        raise WebSearchError(problem) from error


def _detail(response: httpx.Response) -> str:
    try:
        found = response.json()
    except ValueError:
        found = None
    detail = found.get("detail", found) if isinstance(found, dict) else None
    if isinstance(detail, dict):
        detail = detail.get("error", detail)
    text = " ".join(str(detail or response.text).split())
    return (text or response.reason_phrase)[:MAX_DETAIL_CHARACTERS]
