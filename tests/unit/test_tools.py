import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel, Field

from polos import MCPServer, registry
from polos.errors import ConfigurationError
from polos.tools.tool import Tool, tool
from polos.workflows import Workflow, get_workflow


class Query(BaseModel):
    text: str = Field(description="what to look for")
    max_results: int = Field(5, alias="maxResults")


class Other(BaseModel):
    text: str


class Found(BaseModel):
    hits: list[str]


@dataclass
class Handle:
    id: str = "run-1"


@dataclass
class Client:
    """Stands for a server: keeps what was started, answers with a given record."""

    result: Any = None
    calls: list[Any] = field(default_factory=list)

    async def invoke(self, workflow_id, payload=None, **options):
        self.calls.append((workflow_id, payload))
        return Handle()

    async def wait(self, execution_id, *, timeout_seconds=None):
        return {"status": "completed", "result": self.result}


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch):
    monkeypatch.setattr(registry, "_definitions", {})


def searching():
    @tool
    async def search(ctx, query: Query) -> Found:
        """Look something up."""
        return Found(hits=[query.text])

    return search


def test_a_decorated_function_is_a_registered_workflow_of_type_tool():
    search = searching()
    assert isinstance(search, Workflow)
    assert (search.id, search.workflow_type, search.queue_name) == ("search", "tool", "search")
    assert get_workflow("search") is search


def test_the_description_is_the_docstring_unless_given():
    assert searching().description == "Look something up."
    assert tool(description="Other.")(lambda ctx: 1).description == "Other."


def test_the_parameters_are_the_schema_of_the_input_by_alias():
    parameters = searching().parameters
    assert parameters["type"] == "object"
    assert list(parameters["properties"]) == ["text", "maxResults"]
    assert parameters["required"] == ["text"]


def test_given_parameters_win():
    assert tool(parameters={"type": "object"})(lambda ctx: 1).parameters == {"type": "object"}


def test_a_tool_without_input_has_an_empty_object():
    assert tool(id="t")(lambda ctx: 1).parameters == {"type": "object", "properties": {}}


def test_both_forms_of_the_definition():
    t = tool(id="t", description="d")(lambda ctx: 1)
    flat = {"name": "t", "description": "d", "parameters": {"type": "object", "properties": {}}}
    assert t.definition_for_model() == {"type": "function", **flat}
    assert t.to_llm_tool_definition() == {"type": "function", "function": flat}


def test_a_missing_description_is_an_empty_string_for_the_model():
    assert tool(id="t")(lambda ctx: 1).definition_for_model()["description"] == ""


@pytest.mark.parametrize("approval", [None, "none"])
def test_a_tool_without_approval_is_accepted(approval):
    assert tool(id="t", approval=approval)(lambda ctx: 1).approval == approval


def test_a_copy_with_another_approval_leaves_the_tool_as_it_is():
    t = tool(id="t", approval="always", approval_timeout=5)(lambda ctx: 1)
    copied = t.with_approval("none")
    assert (t.approval, t.approval_timeout) == ("always", 5.0)
    assert (copied.approval, copied.approval_timeout, copied.id) == ("none", None, "t")
    assert get_workflow("t") is t


async def test_a_tool_that_is_not_found_under_its_id_is_not_started_by_itself():
    """Another tool, perhaps without approval, would run in its place."""
    t = tool(id="t", approval="none")(lambda ctx: 1)
    client = Client()
    for one in (t.with_approval("always"), Tool("u", func=lambda ctx: 1)):
        Tool("u", func=lambda ctx: 2)
        with pytest.raises(ConfigurationError, match=f"tool '{one.id}' cannot be started by itself"):
            await one.invoke(client)
    assert client.calls == []
    await t.invoke(client)


def test_a_copy_of_a_servers_tool_is_not_started_by_itself_either():
    MCPServer("desk", command=["true"])
    hello = get_workflow("desk.hello")
    assert hello.check_payload({}) == {}
    with pytest.raises(ConfigurationError, match=r"tool 'desk\.hello' cannot be started by itself"):
        hello.with_approval("always").check_payload({})


@pytest.mark.parametrize("approval", [lambda ctx: True, lambda a, b, c: True])
def test_a_function_that_decides_takes_context_and_input(approval):
    with pytest.raises(TypeError, match=r"the approval function of tool 't' must take"):
        tool(id="t", approval=approval)(lambda ctx: 1)


@pytest.mark.parametrize("seconds", [0, -1, "5", True, float("inf"), float("nan")])
def test_a_timeout_of_no_use_is_refused(seconds):
    with pytest.raises(ValueError, match=r"approval_timeout of tool 't' cannot be"):
        tool(id="t", approval="always", approval_timeout=seconds)(lambda ctx: 1)


def test_another_approval_is_refused():
    with pytest.raises(ValueError, match="approval='sometimes' of tool 't'"):
        tool(id="t", approval="sometimes")(lambda ctx: 1)


def test_unknown_keywords_are_ignored():
    assert tool(id="t", strict=True)(lambda ctx: 1).id == "t"


def test_queue_and_route_are_kept():
    t = tool(id="t", queue={"concurrency_limit": 2}, route="gpu")(lambda ctx: 1)
    assert (t.queue_name, t.queue_concurrency_limit, t.route) == ("t", 2, "gpu")


@pytest.mark.parametrize("annotation", [dict, str, Query | None, Any])
def test_an_input_that_is_no_model_is_refused(annotation):
    def bad(ctx, query): ...

    bad.__annotations__["query"] = annotation
    with pytest.raises(TypeError, match="tool 'bad' must be annotated with a Pydantic model"):
        tool(bad)


def test_an_input_without_annotation_is_refused():
    with pytest.raises(TypeError, match="Pydantic model"):
        tool(id="t")(lambda ctx, query: 1)


def test_more_parameters_are_refused():
    with pytest.raises(TypeError, match="must take"):
        tool(id="t")(lambda ctx, query, more: 1)


@pytest.mark.parametrize(
    "returned",
    [
        None,
        str,
        int,
        dict,
        dict[str, int],
        list[Found],
        Found,
        Found | None,
        str | None,
        str | dict,
        Any,
        "Later",
    ],
)
def test_json_return_annotations_are_accepted(returned):
    def good(ctx): ...

    good.__annotations__["return"] = returned
    assert tool(good).id == "good"


@pytest.mark.parametrize("returned", [set, object.__class__, bytes, Found | set, threading.Thread])
def test_other_return_annotations_are_refused(returned):
    def bad(ctx): ...

    bad.__annotations__["return"] = returned
    with pytest.raises(TypeError, match="tool 'bad' returns"):
        tool(bad)


@pytest.mark.parametrize("arguments", [{"text": "a", "maxResults": 2}, {"text": "a", "max_results": 2}])
async def test_arguments_are_parsed_by_alias_or_name_and_the_function_is_called(arguments):
    search = searching()
    query = search.parse_payload(arguments)
    assert query.max_results == 2
    assert await search.call(None, query) == Found(hits=["a"])


def test_invalid_arguments_name_the_tool_and_the_field():
    with pytest.raises(ValueError, match=r"payload of tool 'search' is not Query: text: "):
        searching().parse_payload({})


async def test_sync_tools_do_not_run_on_the_loops_thread():
    t = tool(id="t")(lambda ctx: threading.current_thread() is threading.main_thread())
    assert await t.call(None) is False


async def test_a_tool_may_be_built_from_a_function_of_plain_data():
    async def work(ctx, payload: dict | None):
        return payload

    built = Tool("t", "d", {"type": "object"}, work)
    assert get_workflow("t") is built
    assert await built.call(None, built.parse_payload({"a": 1})) == {"a": 1}


async def test_a_subclass_overrides_default_execute():
    class Echo(Tool):
        async def _default_execute(self, ctx, payload=None):
            return [self.id, payload]

        def get_tool_type(self):
            return "echo"

    echo = Echo("echo")
    assert await echo.call(None, {"a": 1}) == ["echo", {"a": 1}]
    assert (echo.get_tool_type(), echo.get_tool_metadata()) == ("echo", None)


async def test_a_tool_without_function_says_so_when_called():
    with pytest.raises(NotImplementedError, match="'t' has no func"):
        await Tool("t").call(None, {})


def test_two_tools_of_one_factory_replace_each_other_without_a_word(caplog):
    for name in ("one", "two"):
        exec(compile("make()", f"/srv/{name}.py", "exec"), {"make": searching})
    assert not caplog.text


async def test_run_returns_the_result_as_its_class():
    client = Client(result={"hits": ["a"]})
    assert await searching().run(client, Query(text="a")) == Found(hits=["a"])
    assert client.calls == [("search", {"text": "a", "max_results": 5})]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (None, "needs a payload"),
        ({"text": 5}, "is not Query"),
        (Other(text="a"), "takes Query, not Other"),
    ],
)
async def test_run_refuses_a_bad_input_before_anything_starts(payload, message):
    client = Client()
    with pytest.raises(ValueError, match=message):
        await searching().run(client, payload)
    assert not client.calls


async def test_run_refuses_input_for_a_tool_that_takes_none():
    client = Client()
    with pytest.raises(ValueError, match="takes no input"):
        await tool(id="t")(lambda ctx: 1).run(client, {"a": 1})
    assert not client.calls
