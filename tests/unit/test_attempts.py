"""What becomes of a turn whose model call failed, decided from its list of failures alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from polos import Agent, FallbackModel
from polos.agents.attempts import failures_of, judge, model_number
from polos.agents.conversation import Asked
from polos.agents.fallbacks import ModelPolicy
from polos.agents.model_calls import ModelCall, for_model, prepare_call
from polos.errors import MissingCredentialError, ModelError, ModelErrorKind
from polos.journal.turns import TurnClaim
from polos.models.portable import portable_items
from polos.models.request import ModelRequest
from polos.settings import Settings

SETTINGS = Settings(model_max_attempts=3)
OTHER = FallbackModel(provider="anthropic", model="claude")
POLICY = ModelPolicy(fallback_models=(OTHER,))
BUSY = ModelError("busy", retryable=True)


def kind_of_error(kind: str, *, retryable: bool = False) -> ModelError:
    return ModelError(kind, retryable=retryable, kind=ModelErrorKind(kind))


class Turn:
    """A turn's row, as far as failures go."""

    def __init__(self, policy: ModelPolicy = POLICY) -> None:
        self.policy = policy
        self.text: str | None = None
        self.error = ""

    def fails(self, error: Exception) -> float | None:
        failures = failures_of(self.text)
        asked = ["openai/gpt", *(model.label for model in self.policy.fallback_models)][
            model_number(failures)
        ]
        verdict = judge(error, asked=asked, failures=failures, policy=self.policy, settings=SETTINGS, at=1.0)
        self.text, self.error = verdict.failures, verdict.error
        return verdict.delay

    @property
    def models(self) -> list[str]:
        return [failure["model"] for failure in failures_of(self.text)]


def test_each_model_has_attempts_of_its_own_and_all_are_bounded() -> None:
    turn, made = Turn(), 1
    while turn.fails(BUSY) is not None:
        made += 1
    assert made == 6
    assert turn.models == ["openai/gpt"] * 3 + ["anthropic/claude"] * 3
    assert turn.error == "None of 2 models answered: busy (after 3 attempts); busy (after 3 attempts)"


@pytest.mark.parametrize("error", [ModelError("401"), MissingCredentialError("no key")])
def test_what_repeating_cannot_mend_moves_on_at_once(error: ModelError) -> None:
    turn = Turn()
    assert turn.fails(error) == 0.0
    assert model_number(failures_of(turn.text)) == 1
    assert turn.fails(error) is None


@pytest.mark.parametrize(
    "error",
    [kind_of_error("context_overflow", retryable=True), kind_of_error("content_filter"), ValueError("a bug")],
)
def test_what_no_other_model_is_asked_ends_the_turn(error: Exception) -> None:
    assert Turn().fails(error) is None


def test_a_context_overflow_is_marked_on_the_row_and_says_what_to_do() -> None:
    turn = Turn()
    turn.fails(BUSY)
    turn.fails(kind_of_error("context_overflow"))
    assert failures_of(turn.text)[-1]["kind"] == "context_overflow"
    assert "CompactionConfig" in turn.error


def test_a_content_filter_may_be_another_models_question() -> None:
    turn = Turn(ModelPolicy(fallback_models=(OTHER,), fallback_on_content_filter=True))
    assert turn.fails(kind_of_error("content_filter")) == 0.0


def test_an_agent_may_have_its_own_number_of_attempts() -> None:
    turn = Turn(ModelPolicy(max_attempts=1))
    assert turn.fails(BUSY) is None
    assert turn.error == "busy"


def test_a_provider_that_asks_for_a_pause_gets_it() -> None:
    assert Turn().fails(ModelError("slow down", retryable=True, retry_after_seconds=90.0)) == 90.0


# -- the request for another model


def request(**values: Any) -> ModelRequest:
    tools = [{"type": "function", "name": "f", "parameters": {}}, {"type": "web_search"}]
    given = {"provider": "openai", "model": "gpt", "messages": [], "tools": tools, "idempotency_key": "r:t"}
    return ModelRequest(**{**given, "temperature": 0.3, "provider_kwargs": {"seed": 1}, **values})


def request_for(request: ModelRequest, policy: ModelPolicy, number: int) -> ModelRequest:
    return for_model(ModelCall(request, Asked(), policy), number).request


def test_another_model_gets_functions_but_no_built_in_tool_and_no_option_of_the_first() -> None:
    sent = request_for(request(provider_base_url="http://first"), POLICY, 1)
    assert (sent.provider, sent.model, sent.provider_base_url) == ("anthropic", "claude", None)
    assert [tool["type"] for tool in sent.tools] == ["function"]
    assert (sent.provider_kwargs, sent.temperature) == ({}, 0.3)
    assert sent.idempotency_key == "r:t:fallback1"


def test_a_fallback_model_may_say_what_it_wants() -> None:
    wanted = FallbackModel(
        provider="openai",
        model="gpt-mini",
        temperature=0.0,
        max_output_tokens=10,
        tools=[{"type": "web_search"}],
        provider_kwargs={"top_p": 1},
        keeps_run_options=True,
    )
    sent = request_for(request(), ModelPolicy(fallback_models=(wanted,)), 1)
    assert (sent.temperature, sent.max_output_tokens) == (0.0, 10)
    assert sent.provider_kwargs == {"seed": 1, "top_p": 1}
    assert [tool["type"] for tool in sent.tools] == ["function", "web_search"]


def test_a_policy_with_fewer_models_than_the_row_knows_asks_the_last() -> None:
    assert request_for(request(), POLICY, 5).model == "claude"
    assert request_for(request(), ModelPolicy(), 5).model == "gpt"


def test_what_one_provider_left_for_itself_goes_to_no_other() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "1", "is_error": True}
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "reasoning", "id": "rs_1", "encrypted_content": "…"},
        {"type": "reasoning", "thinking_blocks": [{"type": "thinking", "signature": "s"}]},
        {"type": "web_search_call", "id": "ws_1"},
        {**call, "id": "fc_1", "provider_specific_fields": {"thought_signature": "x"}},
        {"type": "function_call", "call_id": "srvtoolu_1", "name": "web_search", "arguments": "{}"},
        output,
        {"role": "assistant", "content": "", "provider_specific_fields": {"citations": []}},
        {"role": "assistant", "content": "yes", "provider_specific_fields": {"citations": []}},
    ]
    assert portable_items(items) == [items[0], call, output, {"role": "assistant", "content": "yes"}]
    assert json.loads(json.dumps(portable_items(items))) == portable_items(items)


# -- definitions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fallback_models": ["claude-sonnet-4-5"]}, "names no provider; write 'provider/model'"),
        ({"fallback_models": ["nobody/claude"]}, "Unknown model provider 'nobody'"),
        ({"fallback_models": "anthropic/claude"}, "must be a list"),
        ({"fallback_models": [3]}, "a fallback model is 'provider/model' or a FallbackModel"),
        ({"model_retries": -1}, "model_retries must be 0 or more"),
        ({"model_timeout_seconds": 0}, "model_timeout_seconds must be more than 0"),
        ({"chunk_timeout_seconds": "1"}, "chunk_timeout_seconds must be more than 0"),
    ],
)
def test_a_definition_that_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Agent(id="policy-refused", provider="openai", model="gpt", **options)


def test_slashes_of_a_model_name_are_kept() -> None:
    agent = Agent(id="policy", provider="openai", model="gpt", fallback_models=["Together/meta/llama"])
    [model] = agent.model_policy.fallback_models
    assert (model.provider, model.model, model.label) == ("together", "meta/llama", "together/meta/llama")


def test_a_fallback_model_is_checked_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="needs a model name"):
        FallbackModel(provider="openai", model="")
    with pytest.raises(TypeError, match="must be dicts"):
        FallbackModel(provider="openai", model="gpt", tools=["web"])  # type: ignore[list-item]


# -- the time a call gets


def _prepared(agent: Agent, run: dict[str, Any]) -> ModelRequest:
    claim = TurnClaim("run", "$turn:1", 1, 1, 0, 0, None)
    known = {"id": "run", "session_id": None, "input": "{}", "usage_limits": None, "created_at": 900.0}
    row = {**known, **run}
    return prepare_call(claim, agent, Asked(), row, Settings(), now=1000.0).request


@pytest.mark.parametrize(
    ("given", "run", "seconds"),
    [
        ({}, {"run_timeout_seconds": None}, 600.0),
        ({"model_timeout_seconds": 7}, {"run_timeout_seconds": None}, 7.0),
        ({}, {"run_timeout_seconds": 100.0, "running_seconds": 30.0, "claimed_at": 990.0}, 60.0),
        ({}, {"run_timeout_seconds": 100.0, "running_seconds": 30.0, "claimed_at": None}, 70.0),
        ({}, {"run_timeout_seconds": 100.0, "running_seconds": 99.9, "claimed_at": 900.0}, 1.0),
    ],
)
def test_a_call_gets_no_more_time_than_its_run_has_left(
    given: dict[str, Any], run: dict[str, Any], seconds: float
) -> None:
    agent = Agent(id="policy-time", provider="openai", model="gpt", **given)
    assert _prepared(agent, run).timeout_seconds == pytest.approx(seconds)


def test_an_agents_silence_comes_before_the_setting() -> None:
    agent = Agent(id="policy-silence", provider="openai", model="gpt", chunk_timeout_seconds=3)
    assert _prepared(agent, {"run_timeout_seconds": None}).chunk_timeout_seconds == 3
