"""Tools from an MCP server in agents: listed, called, asked about, refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from backends import on_both
from mcp_servers.desks import DESK, Ledger
from models.servers import ModelServer

from polos import (
    Agent,
    EnvironmentVariable,
    MCPServer,
    Polos,
    ToolContent,
    get_workflow,
)

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
