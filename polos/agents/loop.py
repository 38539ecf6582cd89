"""The agent loop: ask the model, run the tools it calls in parallel, until it answers or a condition ends it.

Each model call is a turn that any worker executes, each tool call a child run; the loop itself only reads
outcomes, so replaying it costs nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from polos import event_data, serialization
from polos.agents.conversation import first_input, next_input, output_item, user_items
from polos.agents.stop_conditions import StopConditionContext, condition_name, evaluate
from polos.engine import telling
from polos.engine.children import ChildRequest, await_children
from polos.engine.execution import Execution
from polos.engine.inline import run_inline, value_of
from polos.engine.runtime import Runtime
from polos.faultpoints import faultpoint
from polos.journal.states import StepStatus
from polos.journal.steps import StepRow, schedule_turn
from polos.models.request import ModelAnswer
from polos.step_names import internal
from polos.tools.tool import Tool
from polos.types import AgentResult, Step, ToolCall, ToolResult, Usage

if TYPE_CHECKING:
    from polos.agents.agent import Agent
    from polos.engine.context import AgentContext

COMPLETED = "completed"
STOPPED = "stop_condition"
CAPPED = "max_steps"


async def run_loop(agent: Agent, ctx: AgentContext, payload: dict[str, Any]) -> AgentResult:
    """Run an agent to its answer. `payload` is the agent payload."""
    steps: list[Step] = []
    streamed = ctx.step.engine[1].streams
    given = first_input(user_items(payload["input"]), payload.get("provider_kwargs") or {}, streamed=streamed)
    while True:
        number = len(steps) + 1
        answer = await _turn(agent, ctx, number, given)
        results = await _run_tools(agent, ctx, number, answer.tool_calls)
        steps.append(_step(number, answer, results))
        if (reason := await _reason_to_stop(agent, ctx, steps)) is not None:
            return _result(ctx, steps, reason)
        given = next_input([_output_of(result) for result in results], streamed=streamed)


async def _reason_to_stop(agent: Agent, ctx: AgentContext, steps: list[Step]) -> str | None:
    if not steps[-1].tool_results:
        return COMPLETED
    if await _stopped(agent, ctx, steps):
        return STOPPED
    return CAPPED if len(steps) >= _cap(agent, ctx) else None


def _cap(agent: Agent, ctx: AgentContext) -> float:
    """Return how many turns are allowed: unlimited here when a condition of the agent says it."""
    if any(condition_name(condition) == CAPPED for condition in agent.stop_conditions):
        return float("inf")
    runtime, _ = ctx.step.engine
    return runtime.settings.max_agent_steps


async def _stopped(agent: Agent, ctx: AgentContext, steps: list[Step]) -> bool:
    runtime, execution = ctx.step.engine
    context = StopConditionContext(steps=steps, agent_id=agent.id, agent_run_id=ctx.execution_id)
    for index, condition in enumerate(agent.stop_conditions):
        name = internal(f"{len(steps)}.stop_condition.{condition_name(condition)}.{index}")
        if await run_inline(runtime, execution, name, "run", partial(evaluate, condition, context)):
            return True
    return False


# -- turns


async def _turn(agent: Agent, ctx: AgentContext, number: int, given: str) -> ModelAnswer:
    """Return the model's answer in turn `number`.

    Raises:
        StepExecutionError: The model could not be made to answer.
    """
    runtime, execution = ctx.step.engine
    name = internal(f"turn:{number}")

    async def begin(position: int) -> None:
        await _schedule(runtime, execution, agent, name, position, given)

    row = await execution.outcome(name, "turn", begin)
    return ModelAnswer.model_validate(value_of(row))


async def _schedule(
    runtime: Runtime, execution: Execution, agent: Agent, name: str, position: int, given: str
) -> None:
    seq = await execution.commit(
        schedule_turn(
            execution.run_id,
            execution.claim.attempt,
            name,
            position=position,
            input_text=given,
            ring_again=runtime.settings.ring_again_seconds,
        )
    )
    execution.under_way(
        StepRow(name, "turn", position, None, StepStatus.SCHEDULED.value, 0, None, None, None, None)
    )
    execution.scheduled(seq)
    faultpoint("before_ring", f"turn {agent.id}")
    telling.turn_scheduled(runtime, execution, event_data.turn_number(name), streamed=execution.streams)
    runtime.ring_turn(execution.run_id, name, agent.id, execution.claim.route, execution.claim.deployment)


# -- tools


@dataclass(frozen=True)
class _Call:
    """A tool call of an answer: a child to run, or what is wrong with it."""

    call: ToolCall
    request: ChildRequest | None = None
    problem: str | None = None


async def _run_tools(
    agent: Agent, ctx: AgentContext, number: int, tool_calls: list[ToolCall]
) -> list[ToolResult]:
    """Run the tools of one answer in parallel; a failure is a result like any other."""
    calls = [_checked_call(agent, call) for call in tool_calls]
    wanted = {
        internal(f"execute_tools:step_{number}:{index}"): checked.request
        for index, checked in enumerate(calls)
        if checked.request is not None
    }
    runtime, execution = ctx.step.engine
    rows = iter(await await_children(runtime, execution, list(wanted.items())))
    results = [
        _failed(checked.call, checked.problem or "")
        if checked.request is None
        else _tool_result(checked.call, next(rows))
        for checked in calls
    ]
    if not execution.is_recorded(internal(f"turn:{number + 1}")):  # else an earlier attempt has told them
        for result in results:
            telling.tool_answered(runtime, execution, number, result)
    return results


def _checked_call(agent: Agent, call: ToolCall) -> _Call:
    tool = agent.find_tool(call.function.name)
    if tool is None:
        known = sorted(own.id for own in agent.tools if isinstance(own, Tool))
        return _Call(call, problem=f"tool {call.function.name!r} not found; the tools are {known}")
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except ValueError as error:
        return _Call(call, problem=f"the arguments are not valid JSON: {error}")
    if not isinstance(arguments, dict):
        return _Call(call, problem=f"the arguments must be a JSON object, not {type(arguments).__name__}")
    return _Call(call, request=_request(tool, arguments))


def _request(tool: Tool, arguments: dict[str, Any]) -> ChildRequest:
    return ChildRequest(
        kind="tool",
        name=tool.id,
        route=tool.route,
        queue=tool.queue_name,
        payload=arguments,
        rebuilt=tool.rebuild_result,
    )


def _tool_result(call: ToolCall, row: StepRow) -> ToolResult:
    if row.status == StepStatus.FAILED:
        return _failed(call, row.error or "the tool failed")
    return ToolResult(
        tool_name=call.function.name,
        status="completed",
        result=value_of(row),
        result_schema=row.output_schema,
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


def _output_of(result: ToolResult) -> dict[str, Any]:
    """Return the item that tells the model what a tool call came to."""
    failed = result.status == "failed"
    text = str(result.result) if failed else serialization.dumps(result.result)
    return output_item(result.tool_call_call_id, text, is_error=failed)


# -- results


def _step(number: int, answer: ModelAnswer, results: list[ToolResult]) -> Step:
    return Step(
        step=number,
        content=answer.content,
        tool_calls=answer.tool_calls,
        tool_results=results,
        usage=answer.usage,
        raw_output=answer.raw_output,
    )


def _result(ctx: AgentContext, steps: list[Step], reason: str) -> AgentResult:
    return AgentResult(
        agent_run_id=ctx.execution_id,
        result=steps[-1].content or "",
        tool_results=[result for step in steps for result in step.tool_results],
        total_steps=len(steps),
        usage=sum((step.usage for step in steps if step.usage is not None), Usage()),
        stop_reason=reason,
    )
