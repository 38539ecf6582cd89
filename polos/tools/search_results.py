"""What a web search is asked, and what it finds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from polos.errors import PolosError

Topic = Literal["general", "news"]
MAX_RESULTS = 20  # of one search


class WebSearchError(PolosError, RuntimeError):
    """A web search failed. `retryable` says whether the same search may succeed later."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


@dataclass(frozen=True)
class WebSearchOptions:
    """How to search. `max_results` is from 1 to 20."""

    max_results: int
    topic: Topic


@dataclass
class WebSearchResultItem:
    """A page that was found.

    Attributes:
        content: The part of it that fits the query.
        score: How well it fits, from 0 to 1.
        published_date: As the search engine writes it.
        raw_content: The whole page.
    """

    title: str = ""
    url: str = ""
    content: str = ""
    score: float | None = None
    published_date: str | None = None
    raw_content: str | None = None


@dataclass
class WebSearchResult:
    """What a search found; `answer` is the search engine's own summary."""

    query: str
    results: list[WebSearchResultItem] = field(default_factory=list)
    answer: str | None = None


WebSearchFunction = Callable[[str, WebSearchOptions], Awaitable[WebSearchResult]]

_OTHER_NAMES = {"published_date": "publishedDate", "raw_content": "rawContent"}


def read_result(given: Any, query: str, *, max_results: int) -> dict[str, Any]:
    """Return what a search gave as the JSON data that a model reads.

    Dicts stand for the classes; what an item lacks is left empty, and items beyond `max_results` are cut.

    Raises:
        WebSearchError: It is something else; the message says where.
    """
    found = given.__dict__ if isinstance(given, WebSearchResult) else given
    if not isinstance(found, Mapping):
        raise WebSearchError(f"The search returned {_kind(given)}; it must return a WebSearchResult")
    items = found.get("results")
    if isinstance(items, str | Mapping) or not isinstance(items, Iterable):
        raise WebSearchError(f"The search returned results={_kind(items)}; they must be a list")
    answer = found.get("answer")
    return {
        "query": _text(found.get("query"), "query") or query,
        "answer": _text(answer, "answer"),
        "results": [_item(item, place) for place, item in enumerate(items)][:max_results],
    }


def _item(given: Any, place: int) -> dict[str, Any]:
    item = given.__dict__ if isinstance(given, WebSearchResultItem) else given
    where = f"results[{place}]"
    if not isinstance(item, Mapping):
        raise WebSearchError(f"The search returned {where}={_kind(given)}; it must be a WebSearchResultItem")
    url = _text(item.get("url"), f"{where}.url")
    if not url:
        raise WebSearchError(f"The search returned {where} without a url")
    read = {
        "title": _text(item.get("title"), f"{where}.title") or url,
        "url": url,
        "content": _text(item.get("content"), f"{where}.content") or "",
        "score": _score(item.get("score"), f"{where}.score"),
        "publishedDate": _text(_either(item, "published_date"), f"{where}.published_date"),
    }
    raw = _text(_either(item, "raw_content"), f"{where}.raw_content")
    return read if raw is None else {**read, "rawContent": raw}


def _either(item: Mapping[str, Any], name: str) -> Any:
    found = item.get(name)
    return item.get(_OTHER_NAMES[name]) if found is None else found


def _text(given: Any, where: str) -> str | None:
    if given is None or isinstance(given, str):
        return given
    raise WebSearchError(f"The search returned {where}={given!r}; it must be a string")


def _score(given: Any, where: str) -> float | None:
    if given is None or (isinstance(given, int | float) and not isinstance(given, bool)):
        return given
    raise WebSearchError(f"The search returned {where}={given!r}; it must be a number")


def _kind(given: Any) -> str:
    return repr(given) if given is None or isinstance(given, bool) else type(given).__name__
