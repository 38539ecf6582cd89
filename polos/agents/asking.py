"""Asking the model: one call, written down as a turn that whichever worker is free executes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from polos import event_data
from polos.agents import limits
from polos.agents.attempts import is_overflow
from polos.agents.conversation import Conversation, input_alone
from polos.agents.turn_spending import usage_of
from polos.agents.usage_limits import Budget
from polos.engine import telling
from polos.engine.execution import Execution
from polos.engine.inline import value_of
from polos.engine.runtime import Runtime
from polos.errors import ContextOverflowError
from polos.faultpoints import faultpoint
from polos.journal.states import StepStatus
from polos.journal.steps import StepRow, schedule_turn
from polos.models.request import Item, ModelAnswer
from polos.step_names import internal
from polos.types import Step, Usage

if TYPE_CHECKING:
    from polos.agents.agent import Agent
    from polos.agents.remembering import Memory
    from polos.engine.context import AgentContext
    from polos.mcp.listing import Listed


@dataclass
class Loop:
    """One agent run on its way to an answer.

    Attributes:
        agent: The agent whose run it is.
        speaker: The agent that speaks now: another one after a handoff.
        memory: What it has loaded of its session.
        steps: The iterations so far.
        usage: Of every model call so far, judges and refused answers included.
        mended: Answers that did not fit the output schema and were sent back.
        budgets: What limits the run.
        listed: What MCP servers offer to each agent that has spoken, by its id.
    """

    agent: Agent
    ctx: AgentContext
    conversation: Conversation
    speaker: Agent
    memory: Memory
    steps: list[Step] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    mended: int = 0
    budgets: list[Budget] = field(default_factory=list)
    listed: dict[str, Listed] = field(default_factory=dict)

    @property
    def engine(self) -> tuple[Runtime, Execution]:
        """The runtime and this run in it."""
        return self.ctx.step.engine

    @property
    def number(self) -> int:
        """Number of the iteration under way, from 1."""
        return len(self.steps) + 1

    @property
    def other_speaker(self) -> str | None:
        """Id of who speaks, None where it is the run's own agent."""
        return None if self.speaker is self.agent else self.speaker.id


async def ask(
    loop: Loop, name: str, *, config: dict[str, object] | None = None, guarded: bool
) -> ModelAnswer:
    """Return the model's answer to the conversation, which does not yet hold it.

    Args:
        loop: The run on its way.
        name: Of the turn, unique in the run.
        config: Fields of `AgentConfig` that differ for this call.
        guarded: Readers are told of the answer only by `settle`.

    Raises:
        ContextOverflowError: The conversation is too long for the model.
        StepExecutionError: The model could not be made to answer.
        UsageLimitExceededError: The run, or its session, may make no further model call.
    """
    given = loop.conversation.take_input(agent=loop.other_speaker, config=config, guarded=guarded)
    return await _turn(loop, name, given)


async def ask_alone(loop: Loop, name: str, messages: list[Item], config: dict[str, object]) -> ModelAnswer:
    """Return the model's answer to something beside the conversation, such as a judgement.

    Raises:
        StepExecutionError: The model could not be made to answer.
    """
    return await _turn(loop, name, input_alone(messages, config, agent=loop.other_speaker))


async def _turn(loop: Loop, name: str, given: str) -> ModelAnswer:
    _, execution = loop.engine
    turn = internal(f"turn:{name}")

    async def begin(position: int) -> None:
        await _schedule(loop, turn, position, given)

    await limits.check(loop, name, turn)
    row = await execution.outcome(turn, "turn", begin)
    limits.raise_if_refused(row)
    answer = None if row.output is None else ModelAnswer.model_validate(value_of(row))
    loop.usage += usage_of(row, answer, is_fork=execution.claim.forked_from is not None)
    if row.status == StepStatus.FAILED and is_overflow(row.failures):
        raise ContextOverflowError(row.error or "the conversation is too long")
    return answer or ModelAnswer.model_validate(value_of(row))


async def _schedule(loop: Loop, name: str, position: int, given: str) -> None:
    runtime, execution = loop.engine
    claim, agent_id = execution.claim, loop.speaker.id
    seq = await execution.commit(
        schedule_turn(
            execution.run_id,
            claim.attempt,
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
    faultpoint("before_ring", f"turn {agent_id}")
    streamed = execution.streams and event_data.turn_number(name) is not None  # as it is told at its end
    telling.turn_scheduled(runtime, execution, name, streamed=streamed)
    runtime.ring_turn(execution.run_id, name, agent_id, claim.route, claim.deployment)
