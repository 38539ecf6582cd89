"""Hard limits of what runs and sessions may use, and the conditions that end a run in good order."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from polos import (
    Agent,
    AgentResult,
    PolosClient,
    StopConditionContext,
    UsageLimitExceededError,
    UsageLimits,
    WorkflowContext,
    deadline,
    guardrail,
    max_cost,
    tool,
    workflow,
)
from polos.agents.stop_conditions import evaluate
from polos.agents.usage_limits import Budget, budgets_of, budgets_text
from polos.errors import ConfigurationError, ModelError, RunFailedError
from polos.guardrails import GuardrailContext, GuardrailResult
from polos.testing import MovableClock, ScriptedModel, answer, error, runtime, tool_call
from polos.types import Step, Usage

pytestmark = pytest.mark.timeout(120)


class Nothing(BaseModel):
    pass


@tool(id="usage-look", description="Look again")
async def look(ctx: WorkflowContext, input: Nothing) -> str:
    return "nothing new"


@tool(id="usage-slow", description="Look for an hour")
async def slow(ctx: WorkflowContext, input: Nothing) -> str:
    await ctx.step.wait_for("an hour", hours=1)
    return "nothing new"


def used(cost: float | None = 0.25, tokens: int = 100) -> Usage:
    return Usage(input_tokens=tokens - 10, output_tokens=10, total_tokens=tokens, cost=cost)


def looks(count: int, **usage: Any) -> list[Any]:
    """Answers that each call the tool, and the last that does not."""
    return [
        *(answer(None, tool_call("usage-look"), usage=used(**usage)) for _ in range(count)),
        said(**usage),
    ]


def said(text: str = "Nothing.", **usage: Any) -> Any:
    return answer(text, usage=used(**usage))


def agent_with(limits: UsageLimits | None, **options: Any) -> Agent:
    return Agent(
        id="usage-agent", provider="openai", model="m", **{"tools": [look], **options}, usage_limits=limits
    )


async def failure(client: PolosClient, agent: Agent, **options: Any) -> str:
    with pytest.raises(RunFailedError) as failed:
        await agent.run(client, "Go on.", **options)
    return str(failed.value)


# -- definitions and requests


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_cost": 0}, "max_cost"),
        ({"max_cost": -1.0}, "max_cost"),
        ({"max_cost": float("nan")}, "max_cost"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_requests": -3}, "max_requests"),
        ({"deadline_seconds": 0}, "deadline_seconds"),
        ({"max_tokens": 5, "scope": "user"}, "scope"),
        ({"max_dollars": 5}, "max_dollars"),
        ({}, "give one of max_cost, max_tokens"),
    ],
)
def test_limits_of_no_use_are_refused_where_they_are_given(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        UsageLimits(**wrong)
    with pytest.raises(ValueError, match=f"usage-agent.*{said}"):
        agent_with(wrong)  # type: ignore[arg-type]
    agent = agent_with(None)
    with pytest.raises(ValueError, match=said):
        agent.with_input("Go on.", usage_limits=wrong)
    with pytest.raises(ValueError, match=said):
        agent.check_payload({"input": "Go on.", "usage_limits": wrong})


def test_limits_that_are_no_limits_are_refused() -> None:
    with pytest.raises(TypeError, match="usage_limits must be UsageLimits"):
        agent_with(5)  # type: ignore[arg-type]


async def test_a_run_with_limits_of_no_use_is_never_started() -> None:
    async with runtime(model=[]) as client:
        with pytest.raises(ValueError, match="max_tokens"):
            await agent_with(None).run(client, "Go on.", usage_limits={"max_tokens": 0})


def run_row(**values: Any) -> dict[str, Any]:
    return {"id": "r", "session_id": "s", "created_at": 5.0, "input": None, "usage_limits": None, **values}


def test_limits_of_a_run_come_before_those_of_its_agent_one_by_one() -> None:
    of_agent = UsageLimits(max_cost=1.0, max_requests=5)
    given = run_row(input='{"input": "x", "usage_limits": {"max_cost": 3.0}}')
    [budget] = budgets_of(of_agent, given)
    assert budget.limits == UsageLimits(max_cost=3.0, max_requests=5)


def test_limits_of_run_and_session_hold_both() -> None:
    of_agent = UsageLimits(max_cost=10.0, scope="session")
    given = run_row(input='{"input": "x", "usage_limits": {"max_cost": 3.0}}')
    assert [one.limits.scope for one in budgets_of(of_agent, given)] == ["run", "session"]


def test_what_limits_a_run_limits_the_runs_below_it() -> None:
    above = Budget(UsageLimits(max_cost=1.0), "above", "s", 1.0)
    row = run_row(usage_limits=budgets_text([above]))
    own = Budget(UsageLimits(max_tokens=7), "r", "s", 5.0)
    assert budgets_of(UsageLimits(max_tokens=7), row) == [own, above]
    assert budgets_text([]) is None


# -- runs that hit their limits


async def test_a_run_ends_before_the_call_it_cannot_pay() -> None:
    model = ScriptedModel(looks(5))
    async with runtime(model=model) as client:
        agent = agent_with(UsageLimits(max_cost=0.5))
        message = await failure(client, agent)
        [run] = (await client.usage(by="agent")).rows
    assert len(model.calls) == 2
    assert "max_cost=0.5" in message
    assert "$0.500000 in 2 model calls" in message
    assert "UsageLimits(max_cost=…) with more" in message
    assert (run.of, run.calls, run.cost) == ("usage-agent", 2, 0.5)


@pytest.mark.parametrize(
    ("limits", "calls", "said"),
    [
        (UsageLimits(max_tokens=250), 3, "300 tokens in 3 model calls"),
        (UsageLimits(max_requests=1), 1, "max_requests=1"),
    ],
)
async def test_tokens_and_requests_are_limited_too(limits: UsageLimits, calls: int, said: str) -> None:
    model = ScriptedModel(looks(5))
    async with runtime(model=model) as client:
        assert said in await failure(client, agent_with(None), usage_limits=limits)
    assert len(model.calls) == calls


async def test_what_is_enough_is_enough() -> None:
    async with runtime(model=looks(2)) as client:
        done = await agent_with(UsageLimits(max_cost=0.51, max_tokens=201, max_requests=3)).run(
            client, "Go on."
        )
    assert done.usage.cost == pytest.approx(0.75)
    assert done.usage.total_tokens == 300


async def test_failed_attempts_judges_and_refused_answers_count() -> None:
    @guardrail
    async def twice(ctx: WorkflowContext, context: GuardrailContext) -> GuardrailResult:
        is_good = context.content == "Good."
        return GuardrailResult.continue_with() if is_good else GuardrailResult.fail("not good")

    billed = ModelError("broken off", retryable=True, usage=used(tokens=40))
    script = [error(429), billed, said("Bad."), said("Good.")]
    async with runtime(model=script, model_retry_base_seconds=0.01) as client:
        agent = agent_with(None, guardrails=[twice])
        done: AgentResult = await agent.run(client, "Go on.")
        whole = await client.usage()
        [row] = (await client.usage(by="session")).rows
    assert whole.total.calls == 4
    assert row.total_tokens == whole.total.total_tokens == done.usage.total_tokens
    assert done.usage.total_tokens == 240
    assert done.usage.cost == pytest.approx(0.75)


async def test_runs_of_a_session_share_its_limit() -> None:
    model = ScriptedModel([said(), said(), said(), said()])
    async with runtime(model=model) as client:
        agent = agent_with(UsageLimits(max_cost=0.5, scope="session"))
        for _ in range(2):
            await agent.run(client, "Go on.", session_id="shared")
        message = await failure(client, agent, session_id="shared")
        await agent.run(client, "Go on.", session_id="another")
    assert "session shared" in message
    assert len(model.calls) == 3


async def test_an_agent_below_another_keeps_its_limits_and_counts_in_them() -> None:
    """The helper alone has no limits; it may not spend what its caller has not."""
    helper = Agent(id="usage-helper", provider="openai", model="m", tools=[look])
    boss = Agent(id="usage-boss", provider="openai", model="m", tools=[helper.as_tool()])
    first = answer(None, tool_call("usage-helper", input="Help."), usage=used())
    model = ScriptedModel([first, *looks(5)])
    async with runtime(model=model) as client:
        message = await failure(client, boss, usage_limits=UsageLimits(max_cost=0.75))
        rows = (await client.usage(by="agent")).rows
    assert "max_cost=0.75" in message
    assert [(row.of, row.calls) for row in rows] == [("usage-boss", 1), ("usage-helper", 2)]


async def test_a_workflow_reads_which_limit_it_was() -> None:
    agent = agent_with(UsageLimits(max_requests=1))

    @workflow(id="usage-flow")
    async def flow(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.agent_invoke_and_wait("ask", agent.with_input("Go on."))
        except Exception as caught:
            return str(caught)
        return "no limit"

    async with runtime(model=looks(3)) as client:
        assert "max_requests=1" in await flow.run(client)


async def test_a_deadline_counts_all_the_time_since_the_run_was_created() -> None:
    clock = MovableClock()
    script = [answer(None, tool_call("usage-slow"), usage=used()), said()]
    async with runtime(model=script, clock=clock) as client:
        agent = agent_with(UsageLimits(deadline_seconds=1800), tools=[slow])
        handle = await agent.invoke(client, {"input": "Go on."})
        await clock.advance(hours=2)
        record = await client.wait(handle.id, timeout_seconds=30)
    assert record["status"] == "failed"
    assert "deadline_seconds=1800" in record["error"]


class Ahead(MovableClock):
    """The clock of a worker that is an hour ahead of its database."""

    def time(self) -> float:
        return super().time() + 3600


async def test_deadlines_go_by_the_clock_of_the_database() -> None:
    fleet = runtime(model=looks(1))
    fleet._memory.worker._clock = Ahead()
    async with fleet as client:
        agent = agent_with(UsageLimits(deadline_seconds=1800), stop_conditions=[deadline(seconds=1800)])
        result = await agent.run(client, "Go on.")
    assert result.total_steps == 2


async def test_a_model_call_gets_no_more_time_than_the_deadline_leaves() -> None:
    model = ScriptedModel([said()])
    async with runtime(model=model) as client:
        await agent_with(UsageLimits(deadline_seconds=20)).run(client, "Go on.")
    assert 0 < model.last_call.timeout_seconds <= 20


async def test_a_call_that_is_put_off_beyond_the_deadline_is_not_made() -> None:
    """Whoever takes the turn up again finds the time used up, and says so in place of another attempt."""
    clock = MovableClock()
    model = ScriptedModel([error(429, retry_after_seconds=3600), said()])
    async with runtime(model=model, clock=clock) as client:
        agent = agent_with(UsageLimits(deadline_seconds=1800))
        handle = await agent.invoke(client, {"input": "Go on."})
        await clock.advance(hours=2)
        record = await client.wait(handle.id, timeout_seconds=30)
    assert (record["status"], len(model.calls)) == ("failed", 1)
    assert "deadline_seconds=1800" in record["error"]
    assert record["usage"]["calls"] == 1


async def test_a_limit_that_was_raised_lets_a_failed_run_go_on() -> None:
    """The refusal is recorded; a person who retries the run has it asked again."""
    model = ScriptedModel(looks(2))
    async with runtime(model=model) as client:
        agent = agent_with(UsageLimits(max_requests=1))
        handle = await agent.invoke(client, {"input": "Go on."})
        assert (await client.wait(handle.id, timeout_seconds=30))["status"] == "failed"
        agent.usage_limits = UsageLimits(max_requests=5)
        await client.retry(handle.id)
        record = await client.wait(handle.id, timeout_seconds=30)
    assert record["status"] == "completed", record
    assert len(model.calls) == 3
    assert record["usage"]["calls"] == 3


class _Unpriced(ScriptedModel):
    def cost(self, provider: str, model: str, usage: Usage) -> float | None:
        return None


async def test_a_cost_limit_refuses_a_model_without_a_price_before_it_is_called() -> None:
    model = _Unpriced([said(cost=None)])
    async with runtime(model=model) as client:
        message = await failure(client, agent_with(UsageLimits(max_cost=0.5)))
    assert model.calls == []
    assert "Nobody lists the price of model openai/m" in message
    assert "POLOS_MODEL_PRICES" in message


async def test_a_cost_limit_does_not_trust_a_sum_with_unknown_prices() -> None:
    """An agent of the same session that has no limit of its own called a model that nobody has a price of."""
    model = _Unpriced([said(cost=None)])
    async with runtime(model=model) as client:
        await agent_with(None).run(client, "Go on.", session_id="shared")
        limits = UsageLimits(max_cost=0.5, scope="session")
        message = await failure(client, agent_with(limits), session_id="shared")
    assert "price of 1 of the 1 model calls of session shared" in message


def test_the_error_is_one_of_a_step_that_can_never_succeed() -> None:
    assert not UsageLimitExceededError("x").retryable


# -- conditions


async def test_max_cost_ends_a_run_in_good_order() -> None:
    async with runtime(model=looks(5)) as client:
        done = await agent_with(None, stop_conditions=[max_cost(limit=0.5)]).run(client, "Go on.")
    assert (done.stop_reason, done.total_steps) == ("stop_condition", 2)


async def test_deadline_ends_a_run_in_good_order() -> None:
    clock = MovableClock()
    script = [answer(None, tool_call("usage-slow"), usage=used()), said()]
    async with runtime(model=script, clock=clock) as client:
        agent = agent_with(None, tools=[slow], stop_conditions=[deadline(seconds=1800)])
        handle = await agent.invoke(client, {"input": "Go on."})
        await clock.advance(hours=2)
        done = (await handle.get(client))["result"]
    assert done.stop_reason == "stop_condition"


def test_conditions_of_no_use_are_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        max_cost(limit=0)
    with pytest.raises(ValueError, match="seconds"):
        deadline(seconds=-1)


async def test_max_cost_says_when_it_cannot_know() -> None:
    steps = [Step(step=1, usage=used(cost=None))]
    context = StopConditionContext(steps=steps, usage=used(cost=None))
    with pytest.raises(ConfigurationError, match="POLOS_MODEL_PRICES"):
        await evaluate(max_cost(limit=1.0), context)
