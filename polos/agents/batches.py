"""Many runs of agents from a client: all started at once, or a bounded number at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from polos.agents.inputs import AgentRunConfig, Input, check_input
from polos.callers import RunStarter
from polos.current import refuse_inside_run
from polos.handles import ExecutionHandle
from polos.types import AgentResult

if TYPE_CHECKING:
    from polos.agents.agent import Agent

DEFAULT_CONCURRENCY = 10


async def batch_agent_invoke(client: RunStarter, agents: list[AgentRunConfig]) -> list[ExecutionHandle]:
    """Start a run of each agent, each in its own session; return the handles in order.

    Raises:
        RuntimeError: Called inside a run.
    """
    refuse_inside_run("batch_agent_invoke()")
    return [
        await config.agent.invoke(
            client,
            config.payload(),
            session_id=config.session_id,
            user_id=config.user_id,
            initial_state=config.initial_state,
            run_timeout_seconds=config.run_timeout_seconds,
        )
        for config in agents
    ]


async def run_batch(
    agent: Agent,
    client: Any,
    inputs: Sequence[Input],
    *,
    concurrency: int = DEFAULT_CONCURRENCY,
    return_exceptions: bool = False,
    **options: Any,
) -> list[AgentResult | BaseException]:
    """Run an agent on each input, `concurrency` of them at a time; see `Agent.run_batch`.

    Raises:
        ValueError: An input or `concurrency` is of no use; nothing was started.
    """
    refuse_inside_run(f"run_batch() of agent {agent.id!r}")
    if isinstance(inputs, str):
        raise ValueError(f"run_batch() of agent {agent.id!r} takes a list of inputs, not one text")
    if not isinstance(concurrency, int) or isinstance(concurrency, bool) or concurrency < 1:
        raise ValueError(f"concurrency must be a whole number of 1 or more, not {concurrency!r}")
    for given in inputs:
        check_input(agent.id, given)
    places = asyncio.Semaphore(concurrency)

    async def run(given: Input) -> AgentResult:
        async with places:
            return await agent.run(client, given, **options)

    return await _gathered([run(given) for given in inputs], return_exceptions=return_exceptions)


async def _gathered(runs: list[Any], *, return_exceptions: bool) -> list[AgentResult | BaseException]:
    """Return what comes of each; unless failures are returned, the first keeps others from starting."""
    tasks = [asyncio.ensure_future(run) for run in runs]
    try:
        found: list[AgentResult | BaseException] = await asyncio.gather(
            *tasks, return_exceptions=return_exceptions
        )
        return found
    finally:
        for task in tasks:
            task.cancel()
