"""Whether a run may make another model call: asked before each, and once more by whoever makes it.

That a call was allowed needs no record, for its turn stands in the journal. That it was refused is a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from polos.agents.usage_limits import Budget, budgets_of, budgets_text, seconds_left
from polos.engine.inline import run_inline
from polos.engine.runtime import Models, Runtime
from polos.errors import ConfigurationError, StepExecutionError, UsageLimitExceededError
from polos.journal.states import StepStatus
from polos.journal.steps import StepRow
from polos.journal.usage import READ_USED_BELOW, READ_USED_IN_SESSION, Used
from polos.models.request import ModelRequest
from polos.step_names import internal
from polos.types import Usage

if TYPE_CHECKING:
    from polos.agents.agent import Agent
    from polos.agents.asking import Loop
    from polos.engine.execution import Execution

LEAST_SECONDS = 0.1  # for a call that is just before its deadline
_ONE_CALL = Usage(input_tokens=1, output_tokens=1, total_tokens=2)
_PRICE_ADVICE = (
    "list its price in the file that POLOS_MODEL_PRICES names, or limit max_tokens or max_requests instead"
)


def begin(agent: Agent, execution: Execution) -> list[Budget]:
    """Return what limits an agent's run; the runs below it are limited so, too."""
    budgets = budgets_of(agent.usage_limits, vars(execution.claim))
    execution.usage_limits = budgets_text(budgets)
    return budgets


async def check(loop: Loop, name: str, turn: str) -> None:
    """Return if the run may make the model call `name`, whose step is `turn`.

    Raises:
        UsageLimitExceededError: A limit is used up, now or on record.
    """
    runtime, execution = loop.engine
    step = step_of(name)
    if not execution.is_recorded(step):
        if not loop.budgets or execution.is_recorded(turn):
            return
        if await _problem(runtime, loop.budgets, execution.claim.project) is None:
            return
    try:
        refuse = partial(_refuse, runtime, loop.budgets, execution.claim.project)
        await run_inline(runtime, execution, step, "run", refuse)
    except StepExecutionError as error:
        raise UsageLimitExceededError(error.reason) from error


def step_of(name: str) -> str:
    """Return the name of the step that says that the model call `name` was refused."""
    return internal(f"{name}.usage_limits")


async def _refuse(runtime: Runtime, budgets: Sequence[Budget], project: str) -> None:
    """Raise if a limit is used up: asked again of a run that a person retries, it may not be any more."""
    if (problem := await _problem(runtime, budgets, project)) is not None:
        raise UsageLimitExceededError(problem)


async def _problem(runtime: Runtime, budgets: Sequence[Budget], project: str) -> str | None:
    for budget in budgets:
        used = await _used(runtime, budget, project)
        if (problem := problem_with(budget, used)) is not None:
            return problem
    return None


async def _used(runtime: Runtime, budget: Budget, project: str) -> Used:
    if budget.counts_session:
        session = budget.session_id
        [row] = await runtime.journal.read(READ_USED_IN_SESSION, project=project, session=session)
    else:
        [row] = await runtime.journal.read(READ_USED_BELOW, run=budget.run_id)
    return Used(*row)


def problem_with(budget: Budget, used: Used) -> str | None:
    """Return which limit is used up, how far, and what to do; None if there is something left."""
    limits, elapsed = budget.limits, used.now - budget.since
    calls = f"in {used.calls:,} model calls"
    for name, amount, limit, text in (
        ("max_cost", used.cost, limits.max_cost, f"${used.cost:.6f} {calls}"),
        ("max_tokens", used.total_tokens, limits.max_tokens, f"{used.total_tokens:,} tokens {calls}"),
        ("max_requests", used.calls, limits.max_requests, f"{used.calls:,} model calls"),
        ("deadline_seconds", elapsed, limits.deadline_seconds, _seconds(elapsed)),
    ):
        if limit is not None and amount >= limit:
            return _words(budget, name, limit, text)
    if limits.max_cost is not None and used.unpriced_calls:
        return (
            f"Nobody lists the price of {used.unpriced_calls} of the {used.calls} model calls of "
            f"{_subject(budget)}, so that max_cost={limits.max_cost:g} cannot hold: {_PRICE_ADVICE}"
        )
    return None


def _words(budget: Budget, name: str, limit: float, used: str) -> str:
    return (
        f"The usage limit {name}={limit:g} of {_subject(budget)} is used up: {used}. "
        f"Give the agent, or this run, usage_limits=UsageLimits({name}=…) with more"
    )


def _seconds(elapsed: float) -> str:
    return f"{elapsed:.1f} seconds since it was created"


def _subject(budget: Budget) -> str:
    if budget.counts_session:
        return f"session {budget.session_id}"
    return f"run {budget.run_id} with all runs below it"


# -- by whoever makes the call


def time_for_call(budgets: Sequence[Budget], timeout_seconds: float, now: float) -> float:
    """Return how long a model call may take: no longer than until the first deadline.

    Raises:
        UsageLimitExceededError: The deadline is over.
    """
    left = seconds_left(budgets, now)
    if left is None:
        return timeout_seconds
    if left <= 0:
        late = next(one for one in budgets if seconds_left([one], now) == left)
        limit = late.limits.deadline_seconds or 0.0
        raise UsageLimitExceededError(_words(late, "deadline_seconds", limit, _seconds(now - late.since)))
    return min(timeout_seconds, max(left, LEAST_SECONDS))


def check_price(budgets: Sequence[Budget], request: ModelRequest, models: Models) -> None:
    """Return if what the call costs can be counted, where that is limited.

    Raises:
        ConfigurationError: Nobody lists the price of its model.
    """
    limited = next((one for one in budgets if one.limits.max_cost is not None), None)
    if limited is not None and models.cost(request.provider, request.model, _ONE_CALL) is None:
        raise ConfigurationError(
            f"Nobody lists the price of model {request.provider}/{request.model}, so that "
            f"max_cost={limited.limits.max_cost:g} of {_subject(limited)} cannot hold: {_PRICE_ADVICE}"
        )


def raise_if_refused(row: StepRow) -> None:
    """Raise as the refusal it was if whoever was to make the call found a limit used up.

    Raises:
        UsageLimitExceededError: That was so.
    """
    if row.status == StepStatus.FAILED and f'"{UsageLimitExceededError.kind}"' in (row.failures or ""):
        raise UsageLimitExceededError(row.error or UsageLimitExceededError.kind)
