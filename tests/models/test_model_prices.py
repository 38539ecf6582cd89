"""What calls cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from servers import (
    Answer,
    ModelServer,
    Recorder,
    anthropic_answer,
    chat_answer,
    gemini_answer,
    responses_answer,
    responses_text,
)

from polos.errors import ConfigurationError
from polos.models.call import generate
from polos.models.request import ModelRequest
from polos.settings import Settings
from polos.types import Usage

HELLO = [{"role": "user", "content": "hello"}]
MILLION = 1_000_000
ROW = {"input_cost_per_token": 1.0, "output_cost_per_token": 10.0}


@pytest.fixture
def prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes the user's price list and points the setting at it."""

    def write(content: Any) -> Path:
        path = tmp_path / "prices.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.setenv("POLOS_MODEL_PRICES", str(path))
        return path

    return write


async def _usage(record: Recorder, provider: str, model: str, answer: Any, **fields: Any) -> Usage:
    record.answers(Answer(answer))
    path = "" if provider in ("anthropic", "azure", "ollama") else "/v1"
    base_url = record.url + path
    request = ModelRequest(
        provider=provider, model=model, messages=HELLO, provider_base_url=base_url, **fields
    )
    return (await generate(request)).usage


async def test_input_output_and_what_came_from_the_cache_have_prices_of_their_own(record: Recorder) -> None:
    usage = {"prompt_tokens": MILLION, "completion_tokens": 1000, "total_tokens": MILLION + 1000}
    answer = chat_answer("x", **usage, prompt_tokens_details={"cached_tokens": MILLION // 2})
    got = await _usage(record, "openai", "gpt-4o", answer, provider_llm_api="chat_completions")
    assert got.cost == pytest.approx(0.5 * 2.5 + 0.5 * 1.25 + 0.001 * 10)


async def test_the_responses_api_is_priced_alike(record: Recorder) -> None:
    tokens = {"input_tokens": MILLION, "output_tokens": 1000, "total_tokens": MILLION + 1000}
    details = {"input_tokens_details": {"cached_tokens": MILLION // 2}}
    answer = responses_answer(responses_text("x"), usage={**tokens, **details})
    assert (await _usage(record, "openai", "gpt-4o", answer)).cost == pytest.approx(1.25 + 0.625 + 0.01)


async def test_anthropics_cache_writes_cost_more_and_reads_less(record: Recorder) -> None:
    cache = {"cache_creation_input_tokens": 2000, "cache_read_input_tokens": 10_000}
    answer = anthropic_answer({"type": "text", "text": "x"}, **cache)
    got = await _usage(record, "anthropic", "claude-sonnet-4-5", answer)
    assert got.input_tokens == 11 + 12_000
    assert got.cost == pytest.approx((11 * 3 + 2000 * 3.75 + 10_000 * 0.3 + 7 * 15) / MILLION)


async def test_gemini_by_its_prefixed_row(record: Recorder) -> None:
    got = await _usage(record, "gemini", "gemini-2.5-flash", gemini_answer({"text": "x"}))
    assert got.cost == pytest.approx((11 * 0.3 + 7 * 2.5) / MILLION)


async def test_a_deployment_is_priced_by_the_model_that_answered(record: Recorder) -> None:
    answer = {**chat_answer("x"), "model": "gpt-4o-2024-05-13"}
    assert (await _usage(record, "azure", "our-deployment", answer)).cost == pytest.approx(
        (11 * 5 + 7 * 15) / MILLION
    )


async def test_an_unknown_model_has_no_cost_rather_than_none(record: Recorder) -> None:
    assert (await _usage(record, "groq", "brand-new", chat_answer("x"))).cost is None


async def test_a_bare_name_of_another_provider_is_not_its_price(record: Recorder) -> None:
    assert (await _usage(record, "groq", "gpt-4o", chat_answer("x"))).cost is None


async def test_ollama_costs_nothing(record: Recorder) -> None:
    answer = {"model": "m", "message": {"role": "assistant", "content": "x"}, "done": True}
    assert (await _usage(record, "ollama", "m", {**answer, "done_reason": "stop"})).cost == 0.0


@pytest.mark.parametrize("key", ["fireworks/mine", "fireworks_ai/mine", "mine"])
async def test_the_users_price_comes_first(record: Recorder, prices: Any, key: str) -> None:
    prices({key: ROW})
    assert (await _usage(record, "fireworks", "mine", chat_answer("x"))).cost == 11 + 70


async def test_the_users_price_replaces_the_table(record: Recorder, prices: Any) -> None:
    path = prices({"openai/gpt-4o": {**ROW, "cache_read_input_token_cost": 0.5}})
    answer = chat_answer("x", prompt_tokens_details={"cached_tokens": 10})
    fields = {"provider_llm_api": "chat_completions"}
    assert (await _usage(record, "openai", "gpt-4o", answer, **fields)).cost == 1 + 5 + 70
    path.write_text("{}\n")
    assert (await _usage(record, "openai", "gpt-4o", answer, **fields)).cost < 1


async def test_a_price_list_broken_while_working_costs_no_answer(record: Recorder, prices: Any) -> None:
    prices("{")
    assert (await _usage(record, "groq", "m", chat_answer("x"))).cost is None


async def test_streamed_answers_have_a_cost(server: ModelServer) -> None:
    server.says("hello")
    request = ModelRequest(provider="openai", model="gpt-4o", messages=HELLO)
    answer = await generate(request, on_chunk=lambda _: None)
    expected = (answer.usage.input_tokens * 2.5 + answer.usage.output_tokens * 10) / MILLION
    assert answer.usage.cost == pytest.approx(expected)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not JSON"),
        ([], "must hold one object"),
        ({"openai/x": 1}, "'openai/x' must have an object"),
        ({"openai/x": {"input_cost_per_token": 1}}, "lacks output_cost_per_token"),
        ({"openai/x": {**ROW, "output_cost_per_token": "1"}}, "must be a number of 0 or more, not '1'"),
        ({"openai/x": {**ROW, "cache_read_input_token_cost": -1}}, "cache_read_input_token_cost"),
    ],
)
def test_a_price_list_is_checked_with_the_settings(prices: Any, content: Any, complaint: str) -> None:
    prices(content)
    with pytest.raises(ConfigurationError, match=complaint):
        Settings.from_environment()


def test_a_price_list_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLOS_MODEL_PRICES", "/nowhere/prices.json")
    with pytest.raises(ConfigurationError, match=r"POLOS_MODEL_PRICES='/nowhere/prices\.json' cannot"):
        Settings.from_environment()


def test_costs_add_up_as_tokens_do() -> None:
    assert (Usage(cost=1.5) + Usage(cost=0.25)).cost == 1.75
    assert (Usage() + Usage(cost=0.25)).cost == 0.25
    assert (Usage() + Usage()).cost is None
