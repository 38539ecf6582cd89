"""The agent loop: ask the model, run the tools it calls in parallel, until it answers or a condition ends it.

Each model call is a turn that any worker executes, each tool call a child run; the loop itself only reads
outcomes, so replaying it costs nothing.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from polos.agents import limits, loop_hooks
from polos.agents.asking import Loop
from polos.agents.conversation import Conversation, Mark, user_items
from polos.agents.giving_up import give_up
from polos.agents.guarding import answer_of
from polos.agents.remembering import Memory, load_memory, make_room, remember
from polos.agents.server_tools import list_of_speaker
from polos.agents.stop_conditions import StopConditionContext, condition_name, evaluate
from polos.agents.structured import parse_output, repair_request
from polos.agents.tool_calls import output_of, run_tools
from polos.engine.inline import run_inline
from polos.errors import OutputError
from polos.models.request import ModelAnswer
from polos.serialization import class_name
from polos.step_names import internal
from polos.types import AgentResult, Step, ToolResult

if TYPE_CHECKING:
    from pydantic import BaseModel

    from polos.agents.agent import Agent
    from polos.engine.context import AgentContext

COMPLETED = "completed"
STOPPED = "stop_condition"
CAPPED = "max_steps"


async def run_loop(agent: Agent, ctx: AgentContext, payload: dict[str, Any]) -> AgentResult:
    """Run an agent to its answer. `payload` is the agent payload.

    Raises:
        StepExecutionError: A model call failed for good, or a hook refused.
        GuardrailError, OutputError: The model's answers were not accepted.
    """
    _, execution = ctx.step.engine
    budgets = limits.begin(agent, execution)
    memory = await load_memory(ctx, user_items(payload["input"]))
    loop = Loop(
        agent, ctx, _conversation(ctx, payload, memory), speaker=agent, memory=memory, budgets=budgets
    )
    while True:
        reason, mark = await _iterate(loop)
        if reason is None:
            continue
        try:
            result = _result(loop, reason, _output(loop))
        except OutputError as error:
            await _ask_again(loop, error, mark)
        else:
            remember(loop)
            return result


def _conversation(ctx: AgentContext, payload: dict[str, Any], memory: Memory) -> Conversation:
    _, execution = ctx.step.engine
    return Conversation(
        memory.given,
        provider_kwargs=payload.get("provider_kwargs") or {},
        streamed=execution.streams,
        history=memory.history,
        reference=memory.reference,
    )


async def _iterate(loop: Loop) -> tuple[str | None, Mark]:
    """Make one iteration; return why the loop ends, if it does, and where the iteration began."""
    await list_of_speaker(loop)
    await loop_hooks.before_step(loop)
    await make_room(loop)
    mark = loop.conversation.mark()
    speaker = loop.speaker
    answer = await answer_of(loop)
    results = await run_tools(loop, answer.tool_calls)
    step = await _after_step(loop, speaker, _step(loop.number, answer, results))
    loop.steps.append(step)
    loop.conversation.add([output_of(result) for result in results])
    return await _reason_to_stop(loop), mark


async def _after_step(loop: Loop, speaker: Agent, step: Step) -> Step:
    """Return the iteration as the hooks of the agent that spoke in it have changed it."""
    loop.speaker, successor = speaker, loop.speaker
    try:
        return await loop_hooks.after_step(loop, step)
    finally:
        loop.speaker = successor


def _step(number: int, answer: ModelAnswer, results: list[ToolResult]) -> Step:
    return Step(
        step=number,
        content=answer.content,
        tool_calls=answer.tool_calls,
        tool_results=results,
        usage=answer.usage,
        raw_output=answer.raw_output,
    )


# -- when to stop


async def _reason_to_stop(loop: Loop) -> str | None:
    if not loop.steps[-1].tool_results:
        return COMPLETED
    if await _is_stopped(loop):
        return STOPPED
    return CAPPED if await _is_capped(loop) else None


async def _is_capped(loop: Loop) -> bool:
    """Whether this was the last turn; that it was is a step: the setting may be another one at a replay."""
    runtime, execution = loop.engine
    name = internal(f"{len(loop.steps)}.max_steps")
    if not execution.is_recorded(name) and (execution.expects_more() or len(loop.steps) < _cap(loop)):
        return False
    await run_inline(runtime, execution, name, "run", _nothing)
    return True


async def _nothing() -> None:
    return


def _cap(loop: Loop) -> float:
    """Return how many turns are allowed: unlimited here when a condition of the agent says it."""
    if any(condition_name(condition) == CAPPED for condition in loop.speaker.stop_conditions):
        return float("inf")
    runtime, _ = loop.engine
    return runtime.settings.max_agent_steps


async def _is_stopped(loop: Loop) -> bool:
    runtime, execution = loop.engine
    for index, condition in enumerate(loop.speaker.stop_conditions):
        name = internal(f"{len(loop.steps)}.stop_condition.{condition_name(condition)}.{index}")
        if await run_inline(runtime, execution, name, "run", partial(_stops, loop, condition)):
            return True
    return False


async def _stops(loop: Loop, condition: Any) -> bool:
    """Ask a condition; the time since the run was created is by the clock that says when it was."""
    runtime, execution = loop.engine
    context = StopConditionContext(
        steps=loop.steps,
        agent_id=loop.speaker.id,
        agent_run_id=loop.ctx.execution_id,
        usage=loop.usage,
        elapsed_seconds=await runtime.journal.time() - execution.claim.created_at,
    )
    return await evaluate(condition, context)


# -- results


def _output(loop: Loop) -> Any:
    """Return the answer: text, or an instance of the output schema.

    Raises:
        OutputError: It does not fit the schema.
    """
    content = loop.steps[-1].content
    model = loop.speaker.result_output_schema
    return (content or "") if model is None else parse_output(content, model)


async def _ask_again(loop: Loop, error: OutputError, mark: Mark) -> None:
    """Tell the model what is wrong with its answer; the session remembers neither.

    Raises:
        OutputError: It was told often enough.
    """
    model = loop.speaker.result_output_schema
    assert model is not None, "text is never refused"
    if loop.mended >= loop.speaker.output_retries:
        await give_up(loop, f"{len(loop.steps)}.output", OutputError(_no_more(loop, model, error)))
        loop.mended = -1  # the answer that follows is the first anew
    loop.mended += 1
    if not loop.steps[-1].tool_results:
        loop.conversation.forget(mark)
    loop.conversation.add(repair_request(str(error), model), is_remembered=False)


def _no_more(loop: Loop, model: type[BaseModel], error: OutputError) -> str:
    return (
        f"The answers of agent {loop.speaker.id!r} do not fit its output_schema {model.__name__}, also after "
        f"{loop.mended} request(s) to mend them: {error}. Make the schema simpler or the prompt clearer, or "
        "raise output_retries"
    )


def _result(loop: Loop, reason: str, output: Any) -> AgentResult:
    model = loop.speaker.result_output_schema
    return AgentResult(
        agent_run_id=loop.ctx.execution_id,
        result=output,
        result_schema=None if model is None else class_name(model),
        tool_results=[result for step in loop.steps for result in step.tool_results],
        total_steps=len(loop.steps),
        usage=loop.usage,
        stop_reason=reason,
        agent_id=loop.speaker.id,
    )
