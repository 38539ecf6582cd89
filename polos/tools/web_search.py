"""A tool that searches the web: by Tavily, or by a function of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from polos.errors import StepExecutionError
from polos.functions import check_seconds, positional_parameters
from polos.tools.search_results import (
    MAX_RESULTS,
    Topic,
    WebSearchError,
    WebSearchFunction,
    WebSearchOptions,
    WebSearchResult,
    WebSearchResultItem,
    read_result,
)
from polos.tools.tavily import TavilySearchConfig, search_tavily
from polos.tools.tool import ApprovalRule, Tool

__all__ = [
    "TavilySearchConfig",
    "WebSearchError",
    "WebSearchFunction",
    "WebSearchInput",
    "WebSearchOptions",
    "WebSearchResult",
    "WebSearchResultItem",
    "WebSearchToolConfig",
    "create_web_search_tool",
]

DESCRIPTION = (
    "Search the web for current information. Returns pages with title, URL and the part that fits the query, "
    "and perhaps a summary."
)


@dataclass
class WebSearchToolConfig(TavilySearchConfig):
    """How the tool searches.

    Attributes:
        search: Searches instead of Tavily: ``async (query, options) -> WebSearchResult``.
        max_results: How many results a search returns unless the model says otherwise, 1 to 20.
        topic: ``general`` or ``news``, unless the model says otherwise.
        tool_id: What the model calls the tool.
        approval: As in `Tool`.
        approval_timeout: As in `Tool`.
    """

    search: WebSearchFunction | None = None
    max_results: int = 5
    topic: Topic = "general"
    tool_id: str = "web_search"
    approval: ApprovalRule | None = None
    approval_timeout: float | None = None


class WebSearchInput(BaseModel):
    """What the model gives."""

    model_config = ConfigDict(populate_by_name=True)

    query: str = Field(min_length=1, description="What to search for")
    max_results: int | None = Field(
        None, alias="maxResults", ge=1, le=MAX_RESULTS, description="How many results to return"
    )
    topic: Topic | None = Field(None, description="Where to search")


def create_web_search_tool(config: WebSearchToolConfig | None = None) -> Tool:
    """Return a tool that searches the web; each search is a recorded step.

    Raises:
        ValueError: A value of the configuration cannot be used; the message names it.
        TypeError: `search` does not take ``(query, options)``.
    """
    config = config or WebSearchToolConfig()
    _check(config)

    async def web_search(ctx: Any, input: WebSearchInput) -> dict[str, Any]:
        return await _search(ctx, config, input)

    return Tool(
        config.tool_id,
        DESCRIPTION,
        func=web_search,
        approval=config.approval,
        approval_timeout=config.approval_timeout,
    )


async def _search(ctx: Any, config: WebSearchToolConfig, given: WebSearchInput) -> dict[str, Any]:
    options = WebSearchOptions(given.max_results or config.max_results, given.topic or config.topic)
    runtime, _ = ctx.step.engine
    seconds = runtime.settings.search_timeout_seconds

    async def search() -> dict[str, Any]:
        if config.search is None:
            found = await search_tavily(config, given.query, options, timeout_seconds=seconds)
        else:
            found = await call_search(config.search, given.query, options)
        return read_result(found, given.query, max_results=options.max_results)

    try:
        found: dict[str, Any] = await ctx.step.run("web_search", search)
    except StepExecutionError as error:
        raise WebSearchError(error.reason) from error
    return found


async def call_search(search: Any, query: str, options: WebSearchOptions) -> Any:
    """Return what a search function returns, whether it is async or not."""
    from polos.engine.calling import call_in_step  # noqa: PLC0415 - defining tools pays for no engine

    return await call_in_step(search, (query, options), {})


def _check(config: WebSearchToolConfig) -> None:
    for name, value, allowed in (
        ("search_depth", config.search_depth, ("basic", "advanced")),
        ("topic", config.topic, ("general", "news")),
    ):
        if value not in allowed:
            raise _unfit(name, value, f"give one of {', '.join(allowed)}")
    if type(config.max_results) is not int or not 1 <= config.max_results <= MAX_RESULTS:
        raise _unfit("max_results", config.max_results, f"give a whole number from 1 to {MAX_RESULTS}")
    if not isinstance(config.base_url, str) or not config.base_url.startswith(("http://", "https://")):
        raise _unfit("base_url", config.base_url, "give an http or https URL")
    check_seconds(config.timeout_seconds, "timeout_seconds of WebSearchToolConfig")
    if config.search is not None:
        what = "the search function of a web search tool"
        if len(positional_parameters(config.search, most=2, what=what)) != 2:
            raise TypeError(f"{what} must take (query, options)")


def _unfit(name: str, value: object, advice: str) -> ValueError:
    return ValueError(f"WebSearchToolConfig({name}={value!r}) cannot be used: {advice}")
