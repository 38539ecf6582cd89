"""The tools that polos brings, called by a model: web search, and questions to a person."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from models.servers import Answer, ModelServer, Recorder, Seen

from polos import (
    Agent,
    Polos,
    Tool,
    WebSearchOptions,
    WebSearchResult,
    WebSearchResultItem,
    WebSearchToolConfig,
    create_ask_user_tool,
    create_web_search_tool,
    events,
)
from polos.errors import AnswerError

pytestmark = pytest.mark.timeout(120)

FOUND = {
    "query": "polos",
    "answer": "An island group.",
    "results": [
        {"title": "Polos", "url": "https://polos", "content": "About.", "score": 0.9, "raw_content": "All."}
    ],
}


def agent(*tools: Tool) -> Agent:
    return Agent(id="e2e-searcher", provider="openai", model="gpt-4o", tools=tools)


def tavily(told: Recorder, **options: Any) -> Tool:
    options = {"api_key": "tvly-test", "base_url": told.url, **options}
    return create_web_search_tool(WebSearchToolConfig(**options))


async def searched(polos: Polos, model: ModelServer, search: Tool, **arguments: Any) -> Any:
    """Return the result of one call of a search tool."""
    model.calls(("web_search", {"query": "polos", **arguments}))
    model.says("Found.")
    [result] = (await agent(search).run(polos, "Search.")).tool_results
    return result


async def test_tavily_is_asked_and_its_answer_read(polos: Polos, model: ModelServer, told: Recorder) -> None:
    told.answers(Answer(FOUND))
    search = tavily(told, search_depth="advanced", topic="news")
    result = await searched(polos, model, search, maxResults=3, topic="general")
    assert (told.last.path, told.last.headers["authorization"]) == ("/search", "Bearer tvly-test")
    assert told.last.body == {
        "query": "polos",
        "max_results": 3,
        "search_depth": "advanced",
        "include_answer": True,
        "include_raw_content": False,
        "topic": "general",
    }
    assert result.result == {
        "query": "polos",
        "answer": "An island group.",
        "results": [
            {
                "title": "Polos",
                "url": "https://polos",
                "content": "About.",
                "score": 0.9,
                "publishedDate": None,
                "rawContent": "All.",
            }
        ],
    }


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (
            Answer({"detail": {"error": "Unauthorized: missing or invalid API key."}}, 401),
            "HTTP 401: Unauthorized: missing or invalid API key.. Check TAVILY_API_KEY",
        ),
        (Answer({"detail": "Query is too long"}, 400), "HTTP 400: Query is too long"),
        (Answer(b"<html>", 200), "the answer is no JSON: '<html>'"),
        (Answer([], 200), "returned list; it must return a WebSearchResult"),
    ],
)
async def test_what_cannot_help_is_tried_once(
    polos: Polos, model: ModelServer, told: Recorder, answer: Answer, problem: str
) -> None:
    told.answers(answer)
    result = await searched(polos, model, tavily(told))
    assert result.status == "failed"
    assert problem in str(result.error)
    assert len(told.seen) == 1


async def test_a_search_is_tried_again_where_that_may_help(
    polos: Polos, model: ModelServer, told: Recorder
) -> None:
    """Four searches at once: the pauses between tries are those of steps."""
    passing = iter([Answer({}, 429), Answer({}, 500), Answer(FOUND)])

    def answer(seen: Seen) -> Answer:
        match seen.path:
            case "/passing/search":
                return next(passing)
            case "/busy/search":
                return Answer({"detail": "busy"}, 503)
            case "/slow/search":
                told.hung_up.wait(0.5)
        return Answer(cut=True)

    told.answer = answer
    names = ("passing", "busy", "slow", "cut")
    tools = [
        tavily(
            told, tool_id=name, base_url=f"{told.url}/{name}", timeout_seconds=0.2 if name == "slow" else 5
        )
        for name in names
    ]
    model.calls(*((name, {"query": "polos"}) for name in names))
    model.says("Found.")
    passed, *failed = (await agent(*tools).run(polos, "Search.")).tool_results
    assert passed.result["answer"] == "An island group."
    problems = ("HTTP 503: busy", "no answer within 0.2 seconds", "cannot be asked")
    for result, problem in zip(failed, problems, strict=True):
        assert problem in str(result.error)
        assert str(result.result).startswith("Error: Step execution failed after 2 retries: Web search")
    asked = Counter(seen.path.split("/")[1] for seen in told.seen)
    assert asked.pop("slow") in range(1, 4)  # a call may be given up before the server has read it
    assert asked == {"passing": 3, "busy": 3, "cut": 3}


async def test_a_missing_key_says_what_to_set(
    polos: Polos, model: ModelServer, told: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TAVILY_API_KEY", raising=False)
    result = await searched(polos, model, tavily(told, api_key=None))
    assert "set TAVILY_API_KEY for the workers" in str(result.error)
    monkeypatch.setenv("TAVILY_API_KEY", "tvly-environment")
    told.answers(Answer(FOUND))
    assert (await searched(polos, model, tavily(told, api_key=None))).status == "completed"
    assert told.last.headers["authorization"] == "Bearer tvly-environment"


async def test_a_function_searches_instead(polos: Polos, model: ModelServer) -> None:
    asked: list[Any] = []

    async def look(query: str, options: WebSearchOptions) -> WebSearchResult:
        asked.append((query, options))
        return WebSearchResult(query, [WebSearchResultItem(url="https://a", content="text")])

    search = create_web_search_tool(WebSearchToolConfig(search=look, max_results=2))
    result = await searched(polos, model, search)
    assert asked == [("polos", WebSearchOptions(2, "general"))]
    assert result.result["results"][0]["title"] == "https://a"


async def test_a_function_that_returns_nonsense(polos: Polos, model: ModelServer) -> None:
    async def look(query: str, options: WebSearchOptions) -> Any:
        return {"results": [{"title": "no url"}]}

    search = create_web_search_tool(WebSearchToolConfig(search=look))
    result = await searched(polos, model, search)
    assert result.error == "The search returned results[0] without a url"


async def test_a_search_may_need_approval(polos: Polos, model: ModelServer, told: Recorder) -> None:
    told.answers(Answer(FOUND))
    searcher = agent(tavily(told, approval="always"))
    model.calls(("web_search", {"query": "polos"}))
    model.says("Found.")
    handle = await polos.invoke(searcher.id, {"input": "Search.", "streaming": True}, session_id="searching")
    async for event in events.stream_workflow(polos, handle.root_workflow_id, handle.id):
        if event.event_type.startswith("suspend_approve_web_search_"):
            assert event.data["_form"]["context"]["tool"] == "web_search"
            assert event.data["_form"]["context"]["input"]["query"] == "polos"
            assert told.seen == []
            key = event.event_type.removeprefix("suspend_")
            await polos.resume(handle.root_workflow_id, handle.id, key, {"approved": True})
    assert (await polos.wait(handle.id, timeout_seconds=30))["result"]["result"] == "Found."
    assert len(told.seen) == 1


SIZE = {
    "key": "size",
    "type": "select",
    "label": "Size",
    "required": True,
    "options": [{"label": "Small", "value": "s"}, {"label": "Large", "value": "l"}],
}


async def test_a_model_asks_the_user(polos: Polos, model: ModelServer) -> None:
    asker = agent(create_ask_user_tool())
    fields = [SIZE, {"key": "count", "type": "number", "label": "How many"}]
    model.calls(("ask_user", {"question": "Which?", "title": "Order", "fields": fields}))
    model.says("Ordered.")
    handle = await asker.invoke(polos, {"input": "Order."})
    async for event in polos.follow(handle.id):
        if event.event_type.startswith("suspend_ask_user_"):
            assert (event.data["_source"], event.data["_tool"]) == ("ask_user", "ask_user")
            key = event.event_type.removeprefix("suspend_")
            with pytest.raises(AnswerError, match=r"lacks a field 'size' \(Size\), which is required"):
                await polos.resume(asker.id, handle.id, key, {"count": "2"})
            answer = {"size": "Large", "count": "2", "_answered_by": "Ada"}
            await polos.resume(asker.id, handle.id, key, answer)
    record = await polos.wait(handle.id, timeout_seconds=30)
    assert record["result"]["tool_results"][0]["result"] == {"size": "l", "count": 2}


async def test_a_question_that_nobody_answers(polos: Polos, model: ModelServer) -> None:
    asker = agent(create_ask_user_tool(timeout=0.1))
    model.calls(("ask_user", {"question": "Anybody?"}))
    model.says("Nobody.")
    [result] = (await asker.run(polos, "Ask.")).tool_results
    assert result.error == "Nobody answered the question within 0.1 seconds"
