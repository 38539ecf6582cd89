"""Names, keys and base URLs of providers."""

from __future__ import annotations

import pytest

from polos.errors import MissingCredentialError, ModelError
from polos.models.call import generate
from polos.models.providers import PROVIDERS, check_provider, find_endpoint
from polos.models.request import ModelRequest


@pytest.mark.parametrize("name", ["openai", "OpenAI", " ANTHROPIC "])
def test_a_provider_name_is_case_insensitive(name: str) -> None:
    assert check_provider(name) == name.strip().lower()


def test_an_unknown_provider_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'openia'.*anthropic, .*azure, .*openai"):
        check_provider("openia")


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("openai", "gpt-4o", "openai/gpt-4o"),
        ("openai", "openai/gpt-4o", "openai/gpt-4o"),
        ("together", "meta-llama/Llama-3-8b", "together_ai/meta-llama/Llama-3-8b"),
        ("fireworks", "accounts/fireworks/models/x", "fireworks_ai/accounts/fireworks/models/x"),
        ("groq", "openai/gpt-oss-120b", "groq/openai/gpt-oss-120b"),
        ("ollama", "ollama/llama3", "ollama_chat/llama3"),
        ("litellm", "bedrock/some.model", "bedrock/some.model"),
    ],
)
def test_the_prefix_is_added_once_even_to_names_with_slashes(
    provider: str, model: str, expected: str
) -> None:
    assert PROVIDERS[provider].litellm_model(model) == expected


@pytest.mark.parametrize("name", sorted(set(PROVIDERS) - {"ollama", "litellm"}))
async def test_a_missing_key_names_the_variable_and_is_not_retried(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = PROVIDERS[name].key_variables
    for variable in variables:
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(MissingCredentialError, match=variables[0]) as caught:
        await generate(ModelRequest(provider=name, model="m", messages=[]))
    assert not caught.value.retryable
    assert isinstance(caught.value, ValueError)
    assert caught.value.provider == name


def test_an_empty_key_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    with pytest.raises(MissingCredentialError):
        find_endpoint(PROVIDERS["openai"], "m")


def test_gemini_accepts_googles_variable(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    monkeypatch.setenv("GOOGLE_API_KEY", "google")
    assert find_endpoint(PROVIDERS["gemini"], "m").api_key == "google"


def test_azure_needs_an_endpoint(keys: None) -> None:
    with pytest.raises(ModelError, match="AZURE_OPENAI_ENDPOINT") as caught:
        find_endpoint(PROVIDERS["azure"], "m")
    assert not caught.value.retryable


def test_the_agents_base_url_wins_over_the_variable(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://variable/v1")
    assert find_endpoint(PROVIDERS["openai"], "m").base_url == "http://variable/v1"
    assert find_endpoint(PROVIDERS["openai"], "m", base_url="http://agent/v1/").base_url == "http://agent/v1"


@pytest.mark.parametrize(
    ("provider", "base_url", "expected"),
    [
        ("gemini", "http://host", "http://host/v1beta"),
        ("gemini", "http://host/v1beta", "http://host/v1beta"),
        ("anthropic", "http://host/v1/", "http://host"),
        ("ollama", None, "http://localhost:11434"),
        ("ollama", "0.0.0.0:1", "http://127.0.0.1:1"),
    ],
)
def test_base_urls_may_carry_the_version_or_not(
    keys: None, provider: str, base_url: str | None, expected: str
) -> None:
    assert find_endpoint(PROVIDERS[provider], "m", base_url=base_url).base_url == expected


async def test_an_unknown_llm_api_is_refused(keys: None) -> None:
    request = ModelRequest(provider="openai", model="m", messages=[], provider_llm_api="assistants")
    with pytest.raises(ValueError, match="'assistants'"):
        await generate(request)
