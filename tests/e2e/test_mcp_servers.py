"""Tools from an MCP server in agents: listed, called, asked about, refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from backends import on_both
from gates import until
from mcp_servers.desks import DESK, TINY, Ledger
from models.servers import ModelServer

from polos import (
    Agent,
    EnvironmentVariable,
    ExecutionHandle,
    HookContext,
    HookResult,
    MCPServer,
    Polos,
    ToolContent,
    WorkflowContext,
    get_workflow,
    tool,
)
from polos.errors import RunFailedError

pytestmark = pytest.mark.timeout(120)

DESK_ENVIRONMENT = {"LEDGER": EnvironmentVariable("DESK_LEDGER"), "WAIT_FOR": "${DESK_GATES}"}
desk = MCPServer("desk", command=DESK, env=DESK_ENVIRONMENT, approval={"wait": "always"}, timeout_seconds=60)
clerk = Agent(id="e2e-clerk", provider="openai", model="gpt-4o", tools=[desk])


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """What the server wrote down."""
    ledger = Ledger(tmp_path_factory.mktemp("desk"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DESK_LEDGER", str(ledger.file))
        patch.setenv("DESK_GATES", str(ledger.gates))
        yield ledger


def names_of_tools(request: Any) -> set[str]:
    return {each["name"] for each in request.body["tools"]}


@on_both
async def test_an_agent_uses_the_tools_of_a_server(polos: Polos, model: ModelServer, books: Ledger) -> None:
    model.calls(("desk_add", {"a": 1, "b": 2}), ("desk_note", {"text": "milk"}), ("desk_refuse", {}))
    model.says("Noted.")
    result = await clerk.run(polos, "Note milk.")
    added, noted, refused = result.tool_results

    assert result.result == "Noted."
    assert (added.result, noted.result) == ({"result": 3}, "noted milk")
    assert refused.error == "Error executing tool refuse: the drawer is locked"
    assert [names_of_tools(request) for request in model.requests] == [names_of_tools(model.requests[0])] * 2
    assert {"desk_add", "desk_note", "desk_wait"} <= names_of_tools(model.requests[0])
    tree = await polos.get_execution(result.agent_run_id)
    assert tree["status"] == "completed"


async def test_runs_ask_a_server_for_its_tools_no_more_often_than_needed(
    polos: Polos, model: ModelServer, books: Ledger
) -> None:
    model.says("Hello.", times=2)
    await clerk.run(polos, "Hello")
    await clerk.run(polos, "Hello")

    assert len(books.lines("list")) == len(books.lines("start")), "by each process once"
    assert "e2e_own" not in names_of_tools(model.requests[-1])


async def test_calls_can_be_told_apart_by_their_keys(polos: Polos, model: ModelServer, books: Ledger) -> None:
    model.calls(("desk_note", {"text": "one"}), ("desk_note", {"text": "two"}))
    model.says("Noted.")
    await clerk.run(polos, "Note.")

    keys = [line["meta"]["polos/idempotencyKey"] for line in books.lines("note")[-2:]]
    assert len(set(keys)) == 2


async def test_images_reach_the_model_as_images(polos: Polos, model: ModelServer, books: Ledger) -> None:
    model.calls(("desk_picture", {}))
    model.says("A dot.")
    result = await clerk.run(polos, "Look.")

    given = model.requests[-1].body["input"]
    [answer] = [each for each in given if each.get("type") == "function_call_output"]
    assert [block["type"] for block in answer["output"]] == ["input_text", "input_image"]
    assert isinstance(result.tool_results[0].result, ToolContent)


async def test_a_tool_of_a_server_runs_by_itself(polos: Polos, books: Ledger) -> None:
    add = get_workflow("desk.add")
    assert add is not None
    assert await add.run(polos, {"a": 2, "b": 3}) == {"result": 5}


@asynccontextmanager
async def asking(polos: Polos, agent: Agent) -> AsyncIterator[tuple[ExecutionHandle, str, dict[str, Any]]]:
    """Start an agent, and go on when it asks."""
    handle = await agent.invoke(polos, {"input": "Wait."})
    async for event in polos.follow(handle.id):
        if event.event_type.startswith("suspend_"):
            yield handle, event.event_type.removeprefix("suspend_"), event.data
            return
    raise AssertionError("it asked nothing")


async def test_a_person_is_asked_before_a_tool_of_a_server_is_called(
    polos: Polos, model: ModelServer, books: Ledger
) -> None:
    """Once approved it is called, and cancelling the run stops it at the server."""
    model.calls(("desk_wait", {"name": "never"}))
    async with asking(polos, clerk) as (handle, key, data):
        assert data["_form"]["context"] == {"tool": "desk.wait", "input": {"name": "never"}}
        assert books.lines("wait") == []
        await polos.resume("e2e-clerk", handle.id, key, {"approved": True})
        await until(lambda: books.lines("wait"), seconds=30)
        await handle.cancel(polos)
        await until(lambda: books.lines("cancelled"), seconds=30)


async def test_without_prefix_the_model_sees_the_names_of_the_server(
    polos: Polos, model: ModelServer
) -> None:
    seen: list[Any] = []

    def look(ctx: WorkflowContext, hook_context: HookContext) -> HookResult:
        seen.append((hook_context.workflow_id, hook_context.current_payload))
        return HookResult.continue_with()

    server = MCPServer("tiny", command=TINY, prefix=False, on_start=look)
    agent = Agent(id="e2e-plain-names", provider="openai", model="gpt-4o", tools=[server])
    model.calls(("hello", {"to": "Ada"}), ("tiny.hello", {}))
    model.says("Hello.")
    result = await agent.run(polos, "Greet.")

    assert result.tool_results[0].result == "hello"
    assert "'tiny.hello' not found; the tools are ['hello', 'wait']" in str(result.tool_results[1].error)
    assert seen == [("tiny.hello", {"to": "Ada"})]


@tool(id="hello")
async def own_hello(ctx: WorkflowContext) -> str:
    return "own"


REFUSED = {
    "two tools of one name": (
        [MCPServer("tiny", command=TINY, prefix=False), own_hello],
        "has two tools named 'hello': one of the MCP server 'tiny', one of its own tools. Leave prefix=",
    ),
    "a tool that is not offered": (
        [MCPServer("tiny", command=TINY, allowed_tools=["helo"])],
        "has no tools ['helo'], which allowed_tools= or approval= name; it offers ['hello', 'wait']",
    ),
    "approval for a tool that is not offered": (
        [MCPServer("tiny", command=TINY, approval={"helo": "always"})],
        "has no tools ['helo'], which allowed_tools= or approval= name; it offers ['hello', 'wait']",
    ),
    "no such program": (
        [MCPServer("tiny", command=["/no/such/program"])],
        "MCP server 'tiny' cannot be started: [Errno 2]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_run_whose_tools_cannot_be_listed_fails_and_says_what_to_do(
    polos: Polos, model: ModelServer, name: str
) -> None:
    tools, message = REFUSED[name]
    agent = Agent(id="e2e-refused-tools", provider="openai", model="gpt-4o", tools=tools)
    with pytest.raises(RunFailedError) as caught:
        await agent.run(polos, "Hello")
    assert message in str(caught.value)
    assert model.requests == []


async def test_a_run_goes_on_without_a_server_that_is_not_required(polos: Polos, model: ModelServer) -> None:
    server = MCPServer("gone", command=["/no/such/program"], required=False)
    agent = Agent(id="e2e-gone", provider="openai", model="gpt-4o", tools=[server])
    model.calls(("gone_tool", {}))
    model.says("I could not.")
    result = await agent.run(polos, "Try.")

    assert result.result == "I could not."
    assert "'gone_tool' not found" in str(result.tool_results[0].error)


def test_two_servers_of_one_name_are_refused() -> None:
    servers = [MCPServer("twin", command=TINY), MCPServer("twin", command=DESK)]
    with pytest.raises(ValueError, match=r"several MCP servers named \['twin'\]"):
        Agent(id="e2e-twins", provider="openai", model="gpt-4o", tools=servers)
