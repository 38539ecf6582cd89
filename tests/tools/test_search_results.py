"""What search functions give, and what of it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from polos.tools.search_results import WebSearchError, WebSearchResult, WebSearchResultItem, read_result


def read(given: Any, max_results: int = 5) -> dict[str, Any]:
    return read_result(given, "asked", max_results=max_results)


def test_classes_and_dicts_are_read_alike() -> None:
    item = WebSearchResultItem("Title", "https://a", "text", 0.5, "2025-01-01")
    as_dict = {
        "title": "Title",
        "url": "https://a",
        "content": "text",
        "score": 0.5,
        "publishedDate": "2025-01-01",
    }
    expected = {"query": "q", "answer": "yes", "results": [as_dict]}
    assert read(WebSearchResult("q", [item], "yes")) == expected
    assert read({"query": "q", "results": [as_dict], "answer": "yes"}) == expected


def test_what_an_item_lacks_is_left_empty() -> None:
    [item] = read({"results": [{"url": "https://a"}]})["results"]
    assert item == {
        "title": "https://a",
        "url": "https://a",
        "content": "",
        "score": None,
        "publishedDate": None,
    }
    assert read({"results": []}) == {"query": "asked", "answer": None, "results": []}


def test_whole_pages_are_kept_where_there_are_any() -> None:
    [item] = read({"results": [{"url": "https://a", "raw_content": "page"}]})["results"]
    assert item["rawContent"] == "page"


def test_no_more_than_was_asked_for() -> None:
    found = read({"results": [{"url": f"https://{number}"} for number in range(9)]}, max_results=2)
    assert [item["url"] for item in found["results"]] == ["https://0", "https://1"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (None, r"returned None; it must return a WebSearchResult"),
        ("text", "returned str"),
        ([], "returned list"),
        ({}, "results=None; they must be a list"),
        ({"results": "text"}, "results=str"),
        ({"results": {"url": "https://a"}}, "results=dict"),
        ({"results": ["text"]}, r"results\[0\]=str; it must be a WebSearchResultItem"),
        ({"results": [{"url": "https://a"}, {"title": "no url"}]}, r"results\[1\] without a url"),
        ({"results": [{"url": 5}]}, r"results\[0\]\.url=5; it must be a string"),
        ({"results": [{"url": "https://a", "score": "high"}]}, "must be a number"),
        ({"results": [], "answer": ["a"]}, "answer="),
    ],
)
def test_nonsense_is_refused_by_its_place(given: Any, problem: str) -> None:
    with pytest.raises(WebSearchError, match=problem):
        read(given)
