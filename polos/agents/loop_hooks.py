"""The hooks of an agent inside its loop: around each iteration and around each tool call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError

from polos.agents.asking import Loop
from polos.engine.hooks import changed_output, decide, named
from polos.errors import StepExecutionError
from polos.hooks import HookContext, HookResult
from polos.inputs import problems
from polos.models.request import Item
from polos.types import Step, ToolCall, ToolResult

Hooks = Sequence[Callable[..., Any]]


async def before_step(loop: Loop) -> None:
    """Let hooks see the messages of the next call, and replace them.

    Raises:
        StepExecutionError: A hook refused or failed, or its messages are of no use.
    """
    point = f"{loop.number}.on_agent_step_start"
    for name, function in named(point, loop.speaker.on_agent_step_start):
        result = await _decided(loop, name, function, current_payload=_iteration(loop))
        messages = (result.modified_payload or {}).get("messages")
        if messages is not None:
            loop.conversation.replace(_checked_messages(name, messages))


async def after_step(loop: Loop, step: Step) -> Step:
    """Return an iteration that has just been made, as hooks have changed it.

    Raises:
        StepExecutionError: A hook refused or failed, or what it made of the iteration is none.
    """
    for name, function in named(f"{loop.number}.on_agent_step_end", loop.speaker.on_agent_step_end):
        seen = step.model_copy(deep=True)
        result = await _decided(loop, name, function, current_payload=_iteration(loop), current_output=seen)
        if result.modified_output is not None:
            step = _changed_step(name, step, result.modified_output)
    return step


async def before_tool(loop: Loop, index: int, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a tool call, as hooks have changed them.

    Raises:
        StepExecutionError: A hook refused or failed.
    """
    for name, function in named(f"{loop.number}.on_tool_start.{index}", loop.speaker.on_tool_start):
        seen = copy.deepcopy(arguments)
        result = await _decided(loop, name, function, current_tool=tool, current_payload=seen)
        arguments = {**arguments, **(result.modified_payload or {})}
    return arguments


async def after_tool(
    loop: Loop, index: int, call: ToolCall, arguments: dict[str, Any] | None, result: ToolResult
) -> ToolResult:
    """Return what a tool call came to, as hooks have changed it for the model.

    Raises:
        StepExecutionError: A hook refused or failed.
    """
    for name, function in named(f"{loop.number}.on_tool_end.{index}", loop.speaker.on_tool_end):
        decided = await _decided(
            loop,
            name,
            function,
            current_tool=call.function.name,
            current_payload=copy.deepcopy(arguments),
            current_output=copy.deepcopy(result.result),
        )
        if decided.modified_output is not None:
            value = changed_output(name, result.result, decided.modified_output)
            result = result.model_copy(update={"result": value})
    return result


async def _decided(loop: Loop, name: str, function: Callable[..., Any], **seen: Any) -> HookResult:
    runtime, execution = loop.engine
    context = HookContext(
        workflow_id=loop.speaker.id,
        session_id=loop.ctx.session_id,
        user_id=loop.ctx.user_id,
        agent_config=loop.speaker.config(),
        steps=loop.steps,
        **seen,
    )
    return await decide(runtime, execution, loop.ctx, name, function, context)


def _iteration(loop: Loop) -> dict[str, Any]:
    return {"step": loop.number, "messages": copy.deepcopy(loop.conversation.items)}


def _checked_messages(name: str, messages: Any) -> list[Item]:
    if isinstance(messages, list) and messages and all(isinstance(item, dict) for item in messages):
        return messages
    raise StepExecutionError(f"Hook {name!r} must give a non-empty list of message dicts, not {messages!r}")


def _changed_step(name: str, step: Step, changes: Any) -> Step:
    try:
        if isinstance(changes, dict):
            return Step.model_validate({**step.model_dump(mode="json"), **changes})
        return Step.model_validate(changes)
    except ValidationError as error:
        raise StepExecutionError(
            f"Hook {name!r} changed the step to one of no use: {problems(error)}"
        ) from error
