"""What one attempt at a turn is counted for."""

from __future__ import annotations

import pytest

from polos.agents.limits import problem_with, time_for_call
from polos.agents.turn_spending import CallSpending, usage_of
from polos.agents.usage_limits import Budget, UsageLimits
from polos.errors import ModelError, UsageLimitExceededError
from polos.journal.steps import StepRow
from polos.journal.usage import Used
from polos.models.request import ModelAnswer, ModelRequest
from polos.types import ToolCall, ToolCallFunction, Usage

REQUEST = ModelRequest(provider="OpenAI", model="gpt-4o", messages=[{"role": "user", "content": "x" * 400}])


def spending(interrupted: int = 0, *, is_sent: bool = True, price: float | None = 0.001) -> CallSpending:
    """A call, at so many dollars a token."""

    def cost(provider: str, model: str, usage: Usage) -> float | None:
        return None if price is None else price * usage.total_tokens

    return CallSpending("writer", REQUEST, interrupted, cost, is_sent)


def said(**usage: float) -> ModelAnswer:
    return ModelAnswer(content="y" * 40, usage=Usage(**usage))  # type: ignore[arg-type]


def test_an_answer_counts_as_its_provider_counted() -> None:
    call = spending()
    answer = said(input_tokens=7, output_tokens=3, total_tokens=10, cache_read_input_tokens=5, cost=0.5)
    assert call.counted(answer) is answer
    spent = call.answered(answer)
    assert (spent.agent, spent.model, spent.calls, spent.unpriced_calls) == ("writer", "openai/gpt-4o", 1, 0)
    assert (spent.input_tokens, spent.output_tokens, spent.cached_tokens, spent.cost) == (7, 3, 5, 0.5)


def test_an_answer_that_nobody_counted_is_estimated() -> None:
    call = ToolCall(id="1", function=ToolCallFunction(name="look", arguments="z" * 40))
    answer = said().model_copy(update={"tool_calls": [call]})
    usage = spending().counted(answer).usage
    assert 100 <= usage.input_tokens <= 120
    assert usage.output_tokens == 20
    assert usage.cost == pytest.approx(0.001 * usage.total_tokens)


def test_a_price_that_the_answer_lacks_is_looked_up() -> None:
    assert spending().counted(said(input_tokens=9, output_tokens=1, total_tokens=10)).usage.cost == 0.01


def test_a_call_without_a_price_is_told_apart() -> None:
    call = spending(price=None)
    spent = call.answered(call.counted(said(input_tokens=9, total_tokens=9)))
    assert (spent.calls, spent.unpriced_calls, spent.cost) == (1, 1, None)


def test_a_call_that_was_turned_down_costs_nothing() -> None:
    spent = spending(price=None).failed(ModelError("busy"))
    assert (spent.calls, spent.unpriced_calls, spent.input_tokens, spent.cost) == (1, 0, 0, 0.0)


def test_a_call_that_failed_costs_what_it_is_billed_for() -> None:
    billed = Usage(input_tokens=9, output_tokens=1, total_tokens=10, cost=0.25)
    spent = spending().failed(ModelError("broken off", usage=billed))
    assert (spent.input_tokens, spent.output_tokens, spent.cost) == (9, 1, 0.25)


def test_interrupted_calls_are_counted_with_their_input() -> None:
    spent = spending(2).answered(said(input_tokens=7, output_tokens=3, total_tokens=10, cost=0.5))
    assert spent.calls == 3
    assert 200 + 7 <= spent.input_tokens <= 240 + 7
    assert spent.output_tokens == 3
    assert spent.cost == pytest.approx(0.5 + 0.001 * (spent.input_tokens - 7))


@pytest.mark.parametrize(("is_sent", "calls"), [(True, 2), (False, 1)])
def test_a_call_that_is_given_up_counts_if_it_was_sent(is_sent: bool, calls: int) -> None:
    assert spending(1, is_sent=is_sent).broken_off().calls == calls


def test_what_a_turn_used_is_read_from_its_row() -> None:
    row = StepRow("$turn:1", "turn", 0, 1, "completed", 2, None, None, None, None, None, 20, 6, 4, 0.5)
    answer = said(input_tokens=10, cache_read_input_tokens=2, cache_creation_input_tokens=3)
    usage = usage_of(row, answer)
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.cost) == (20, 6, 26, 0.5)
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (4, 3)
    assert usage_of(row, None).total_tokens == 26


def test_a_turn_of_a_version_that_kept_no_sums_used_what_its_answer_says() -> None:
    row = StepRow("$turn:1", "turn", 0, 1, "completed", 1, None, None, None, None)
    answer = said(input_tokens=10, output_tokens=2, total_tokens=12)
    assert usage_of(row, answer).total_tokens == 12
    assert usage_of(row, answer, is_fork=True).total_tokens == 0


# -- limits


def test_what_is_left_of_the_deadline_is_the_time_of_a_call() -> None:
    budget = Budget(UsageLimits(deadline_seconds=10), "r", None, since=100.0)
    assert time_for_call([], 60.0, 105.0) == 60.0
    assert time_for_call([budget], 60.0, 105.0) == 5.0
    assert time_for_call([budget], 2.0, 105.0) == 2.0
    with pytest.raises(UsageLimitExceededError, match=r"deadline_seconds=10 of run r.*12\.0 seconds"):
        time_for_call([budget], 60.0, 112.0)


def test_a_session_limit_of_a_run_without_a_session_counts_the_run() -> None:
    budget = Budget(UsageLimits(max_requests=1, scope="session"), "r", None, since=0.0)
    assert not budget.counts_session
    assert "of run r with all runs below it" in (problem_with(budget, Used(calls=1)) or "")
