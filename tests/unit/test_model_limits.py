"""What POLOS_MODEL_LIMITS may say, and what is wrong with everything else."""

from __future__ import annotations

import pytest

from polos.errors import ConfigurationError
from polos.model_limits import limit_for, parse_limits
from polos.settings import Settings

TEXT = "openai/gpt-4o=500rpm,200000tpm; Anthropic/*=50rpm,burst=5s;groq/llama*=10rps;*=1rpm;"


def test_limits_are_read() -> None:
    limits = Settings.from_environment({"POLOS_MODEL_LIMITS": TEXT}).model_limits
    assert [str(limit) for limit in limits] == [
        "openai/gpt-4o=500rpm,200000tpm",
        "anthropic/*=50rpm,burst=5s",
        "groq/llama*=600rpm",
        "*=1rpm",
    ]
    assert limits[0].cost(1000) == pytest.approx(0.3), "a thousand of 200,000 tokens a minute"
    assert limits[0].cost(10) == pytest.approx(0.12)


@pytest.mark.parametrize(
    ("label", "pattern"),
    [
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("openai/gpt-4o-mini", "*"),
        ("anthropic/claude", "anthropic/*"),
        ("groq/llama-3", "groq/llama*"),
    ],
)
def test_the_limit_that_says_most_counts(label: str, pattern: str) -> None:
    found = limit_for(parse_limits(TEXT), label)
    assert found is not None
    assert found.pattern == pattern


def test_a_model_without_a_limit_has_none() -> None:
    assert limit_for(parse_limits("openai/gpt-4o=1rpm"), "openai/gpt-4") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("openai/gpt-4o", "is no limit; write them like"),
        ("openai/gpt-4o=", "is no limit"),
        ("gpt-4o=5rpm", "names no model; write 'provider/model'"),
        ("open*ai/gpt=5rpm", "names no model"),
        ("openai/gpt-4o=5rpd", r"'5rpd', which is no limit; write '500rpm'"),
        ("openai/gpt-4o=-5rpm", "which is no limit"),
        ("openai/gpt-4o=0rpm", "could never be asked"),
        ("openai/gpt-4o=5rpm,6rpm", "beside another limit of the same kind"),
        ("openai/gpt-4o=5rpm;openai/gpt-4o=6tpm", "several limits; write them together"),
        ("openai/gpt-4o=burst=5s", "has a burst but no limit"),
    ],
)
def test_what_cannot_be_read_is_refused_at_the_start(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as refused:
        Settings.from_environment({"POLOS_MODEL_LIMITS": text})
    assert "POLOS_MODEL_LIMITS=" in str(refused.value)
