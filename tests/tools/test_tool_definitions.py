"""The tools that polos brings: what they take, and configurations that are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from polos import registry
from polos.tools.ask_user import AskUserInput, create_ask_user_tool, question_of
from polos.tools.web_search import TavilySearchConfig, WebSearchToolConfig, create_web_search_tool


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_definitions", {})
        yield


def test_the_search_tool_takes_a_query() -> None:
    search = create_web_search_tool()
    assert (search.id, search.approval) == ("web_search", None)
    assert list(search.parameters["properties"]) == ["query", "maxResults", "topic"]
    assert search.parameters["required"] == ["query"]
    for given in ({"query": "a", "maxResults": 3}, {"query": "a", "max_results": 3}):
        assert search.parse_payload(given).max_results == 3
    with pytest.raises(ValueError, match="maxResults"):
        search.parse_payload({"query": "a", "maxResults": 0})


def test_a_search_tool_is_configured() -> None:
    config = WebSearchToolConfig(
        "key", "advanced", False, True, "https://here", tool_id="look", approval="always"
    )
    assert isinstance(config, TavilySearchConfig)
    assert "key" not in repr(config).replace("api_key", "")
    search = create_web_search_tool(config)
    assert (search.id, search.approval) == ("look", "always")


async def _search(query: str) -> None: ...


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"search_depth": "deep"}, "search_depth='deep'.*give one of basic, advanced"),
        ({"topic": "sports"}, "topic='sports'.*give one of general, news"),
        ({"max_results": 0}, "max_results=0.*from 1 to 20"),
        ({"max_results": True}, "max_results=True"),
        ({"max_results": "5"}, "max_results='5'"),
        ({"base_url": "api.tavily.com"}, "base_url='api.tavily.com'.*give an http or https URL"),
        ({"timeout_seconds": 0}, "timeout_seconds of WebSearchToolConfig cannot be 0"),
        ({"approval": "maybe"}, "approval='maybe' of tool 'web_search'"),
        ({"tool_id": ""}, "id '' cannot be used"),
        ({"search": _search}, r"must take \(query, options\)"),
        ({"search": "tavily"}, "must be a function"),
    ],
)
def test_a_configuration_of_no_use_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises((ValueError, TypeError), match=problem):
        create_web_search_tool(WebSearchToolConfig(**options))


def test_a_question_without_fields_asks_for_text() -> None:
    assert question_of(AskUserInput(question="Why?")) == {
        "_form": {
            "title": "The assistant has a question",
            "description": "Why?",
            "fields": [
                {
                    "key": "response",
                    "name": "response",
                    "type": "textarea",
                    "label": "Answer",
                    "required": True,
                }
            ],
        },
        "_source": "ask_user",
        "_tool": "ask_user",
    }


def test_fields_are_asked_as_they_are_given() -> None:
    given = {
        "question": "Which?",
        "title": "Size",
        "fields": [
            {
                "key": "size",
                "type": "select",
                "label": "Size",
                "required": True,
                "options": [{"label": "Small", "value": 1}],
            },
            {"key": "note", "label": "Note", "description": "If any"},
        ],
    }
    form = question_of(AskUserInput.model_validate(given))["_form"]
    assert form["title"] == "Size"
    assert form["fields"] == [
        {
            "key": "size",
            "name": "size",
            "type": "select",
            "label": "Size",
            "required": True,
            "options": [{"label": "Small", "value": "1"}],
        },
        {
            "key": "note",
            "name": "note",
            "type": "text",
            "label": "Note",
            "description": "If any",
            "required": False,
        },
    ]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ([{"key": "a", "type": "select", "label": "A"}], "a select without options"),
        ([{"key": "a", "label": "A"}, {"key": "a", "label": "B"}], "several fields have the key 'a'"),
        ([{"key": "_a", "label": "A"}], "must not begin with an underscore"),
        ([{"key": "", "label": "A"}], "key"),
        ([{"key": "a", "type": "date", "label": "A"}], "type"),
        ([{"key": "a"}], "label"),
    ],
)
def test_a_question_of_no_use_is_refused(fields: list[dict[str, Any]], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        AskUserInput.model_validate({"question": "Why?", "fields": fields})
    with pytest.raises(ValueError, match=r"timeout of create_ask_user_tool\(\) cannot be 0"):
        create_ask_user_tool(timeout=0)
