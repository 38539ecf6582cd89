"""MCP servers in a runtime in memory: the same, and all programs end with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcp_servers.desks import TINY

from polos import Agent, MCPServer, WorkflowContext, get_workflow, workflow
from polos.errors import RunFailedError
from polos.testing import ScriptedModel, runtime, tool_call

pytestmark = pytest.mark.timeout(120)


async def test_an_agent_uses_a_server_and_the_program_ends_with_the_runtime(tmp_path: Path) -> None:
    server = MCPServer("memory", command=[*TINY, str(tmp_path / "ended")])
    agent = Agent(id="mcp-in-memory", provider="openai", model="gpt-4o", tools=[server])
    model = ScriptedModel([tool_call("memory_hello"), "It greets."])
    async with runtime(model=model) as client:
        response = await agent.run(client, "Greet.")
        assert not (tmp_path / "ended").exists()

    assert [found.result for found in response.tool_results] == ["hello"]
    assert [tool["name"] for tool in model.calls[0].tools] == ["memory_hello", "memory_wait"]
    assert (tmp_path / "ended").exists()


async def test_a_workflow_calls_a_tool_that_may_be_called_once() -> None:
    MCPServer("once", command=TINY, at_most_once=True)
    hello = get_workflow("once.hello")

    @workflow(id="mcp-calls-once")
    async def greets(ctx: WorkflowContext) -> str:
        result: str = await ctx.step.invoke_and_wait("greet", hello, {"to": "Ada"})
        return result

    async with runtime() as client:
        assert await greets.run(client) == "hello"


async def test_a_list_of_tools_that_cannot_be_stored_says_what_to_do() -> None:
    server = MCPServer("many", command=TINY, env={"MORE": "x" * 200})
    agent = Agent(id="mcp-too-many", provider="openai", model="gpt-4o", tools=[server])
    async with runtime(max_value_bytes=300) as client:
        with pytest.raises(RunFailedError, match=r"offers 3 tools.*POLOS_MAX_VALUE_BYTES.*allowed_tools="):
            await agent.run(client, "Hi")
