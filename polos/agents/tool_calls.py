"""The tool calls of one answer: child runs in parallel, handoffs, and what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from polos import serialization
from polos.agents import loop_hooks
from polos.agents.asking import Loop
from polos.agents.conversation import output_item
from polos.agents.server_tools import find_listed, names_of_speaker
from polos.engine import telling
from polos.engine.children import ChildRequest, await_children
from polos.engine.inline import run_inline, value_of
from polos.errors import NonDeterminismError
from polos.journal.states import StepStatus
from polos.journal.steps import StepRow
from polos.models.request import Item
from polos.step_names import internal
from polos.tools.content import CONTENT, content_of
from polos.tools.tool import Tool
from polos.types import ToolCall, ToolResult

if TYPE_CHECKING:
    from polos.agents.agent import Agent
    from polos.agents.handoffs import Handoff


@dataclass(frozen=True)
class _Call:
    """A tool call of an answer: a child to run, an agent to hand over to, or what is wrong with it."""

    call: ToolCall
    arguments: dict[str, Any] | None = None
    tool: Tool | None = None
    agent: Agent | None = None
    problem: str | None = None


async def run_tools(loop: Loop, tool_calls: Sequence[ToolCall]) -> list[ToolResult]:
    """Run the tools of one answer in parallel; a failure is a result like any other.

    If one of them hands over to another agent, that one speaks from now on.

    Raises:
        StepExecutionError: A hook refused or failed.
    """
    calls = _one_handoff([await _checked_call(loop, index, call) for index, call in enumerate(tool_calls)])
    calls = [await _after_hooks(loop, index, call) for index, call in enumerate(calls)]
    results = await _run(loop, calls)
    results = [
        await loop_hooks.after_tool(loop, index, call.call, call.arguments, result)
        for index, (call, result) in enumerate(zip(calls, results, strict=True))
    ]
    _tell(loop, results)
    if (agent := next((call.agent for call in calls if call.agent is not None), None)) is not None:
        _hand_off(loop, agent)
    return results


def output_of(result: ToolResult) -> Item:
    """Return the item that tells the model what a tool call came to."""
    failed = result.status == "failed"
    if not failed and result.result_schema == CONTENT and (content := content_of(result.result)) is not None:
        return output_item(result.tool_call_call_id, content.for_model(), is_error=False)
    is_text = failed and isinstance(result.result, str)
    text = str(result.result) if is_text else serialization.dumps(result.result)
    return output_item(result.tool_call_call_id, text, is_error=failed)


async def _checked_call(loop: Loop, index: int, call: ToolCall) -> _Call:
    name = call.function.name
    tool = loop.speaker.find_tool(name) or find_listed(loop, name)
    handoff = loop.speaker.find_handoff(name)
    if tool is None and handoff is None:
        return _Call(call, problem=f"tool {name!r} not found; the tools are {names_of_speaker(loop)}")
    try:
        arguments = serialization.parse(call.function.arguments or "{}")
    except ValueError as error:
        return _Call(call, problem=f"the arguments are not valid JSON: {error}")
    if not isinstance(arguments, dict):
        return _Call(call, problem=f"the arguments must be a JSON object, not {type(arguments).__name__}")
    if handoff is None:
        return _Call(call, arguments, tool)
    agent = await _successor(loop, index, handoff)
    if agent is None:
        return _Call(call, problem=f"agent {handoff.agent_id!r} is not defined in this worker")
    return _Call(call, arguments, agent=agent)


async def _successor(loop: Loop, index: int, handoff: Handoff) -> Agent | None:
    """Return the agent to hand over to; that the worker did not know it is a step, for others may.

    Raises:
        NonDeterminismError: An earlier attempt handed over to it, and this worker does not know it.
    """
    runtime, execution = loop.engine
    name = internal(f"{loop.number}.unknown_agent.{index}")
    agent = handoff.find_agent()
    if agent is not None and not execution.is_recorded(name):
        return agent
    if not execution.is_recorded(name) and execution.expects_more():
        raise NonDeterminismError(
            f"The run was handed over to agent {handoff.agent_id!r}, which is not defined in this worker. "
            f"Import the module that defines it (POLOS_IMPORTS), then: polos runs unblock {execution.run_id}"
        )
    await run_inline(runtime, execution, name, "run", _nothing)
    return None


async def _nothing() -> None:
    return


def _one_handoff(calls: list[_Call]) -> list[_Call]:
    """Return the calls with the first handoff only: one agent speaks at a time."""
    agents = [call.agent for call in calls if call.agent is not None]
    if len(agents) < 2:
        return calls
    problem = f"the conversation is handed over to {agents[0].id!r} already; hand over to one agent only"
    first = next(index for index, call in enumerate(calls) if call.agent is not None)
    return [
        replace(call, agent=None, problem=problem) if call.agent is not None and index > first else call
        for index, call in enumerate(calls)
    ]


async def _after_hooks(loop: Loop, index: int, call: _Call) -> _Call:
    if call.arguments is None or call.problem is not None:
        return call
    arguments = await loop_hooks.before_tool(loop, index, call.call.function.name, call.arguments)
    return replace(call, arguments=arguments)


async def _run(loop: Loop, calls: Sequence[_Call]) -> list[ToolResult]:
    wanted = {
        internal(f"execute_tools:step_{loop.number}:{index}"): _request(loop.speaker, call)
        for index, call in enumerate(calls)
        if call.tool is not None and call.problem is None
    }
    rows = iter(await await_children(*loop.engine, list(wanted.items())))
    return [_result(call, rows) for call in calls]


def _result(call: _Call, rows: Any) -> ToolResult:
    if call.problem is not None:
        return _failed(call.call, call.problem)
    if call.agent is not None:
        return _completed(call.call, {"agent": call.agent.id}, None)
    row: StepRow = next(rows)
    if row.status == StepStatus.FAILED:
        return _failed(call.call, row.error or "the tool failed")
    return _completed(call.call, value_of(row), row.output_schema)


def _request(speaker: Agent, call: _Call) -> ChildRequest:
    tool = call.tool
    assert tool is not None, "callers check"
    return ChildRequest(
        kind="tool",
        name=tool.id,
        route=tool.route,
        queue=tool.queue_name,
        payload=call.arguments,
        rebuilt=tool.rebuild_result,
        caller=speaker.id,
    )


def _completed(call: ToolCall, value: Any, schema: str | None) -> ToolResult:
    return ToolResult(
        tool_name=call.function.name,
        status="completed",
        result=value,
        result_schema=schema,
        tool_call_id=call.id,
        tool_call_call_id=call.call_id or call.id,
    )


def _failed(call: ToolCall, message: str) -> ToolResult:
    return ToolResult(
        tool_name=call.function.name,
        status="failed",
        result=f"Error: {message}",
        error=message,
        tool_call_id=call.id,
        tool_call_call_id=call.call_id or call.id,
    )


def _tell(loop: Loop, results: Sequence[ToolResult]) -> None:
    runtime, execution = loop.engine
    if execution.is_recorded(internal(f"turn:{loop.number + 1}")):
        return  # an earlier attempt has told them
    for result in results:
        telling.tool_answered(runtime, execution, loop.number, result)


def _hand_off(loop: Loop, agent: Agent) -> None:
    runtime, execution = loop.engine
    loop.speaker = agent
    if not execution.is_recorded(internal(f"turn:{loop.number + 1}")):
        telling.handed_off(runtime, execution, loop.number, agent.id)
