"""LiteLLM imported once for the folder, a model server and a recorder, and no way to reach a provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import (
    BASE_URL_VARIABLES,
    KEY_VARIABLES,
    TEST_KEY,
    ModelServer,
    Recorder,
    model_server,
    recorder,
)

from polos.models.call import preload


@pytest.fixture(scope="session")
def litellm_loaded() -> None:
    preload()


@pytest.fixture(scope="session")
def llmock_process() -> Iterator[ModelServer]:
    with model_server() as server:
        yield server


@pytest.fixture
def server(llmock_process: ModelServer, litellm_loaded: None, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    """A clean llmock that every provider variable points at."""
    llmock_process.reset()
    for name, value in llmock_process.environment.items():
        monkeypatch.setenv(name, value)
    return llmock_process


@pytest.fixture
def record(litellm_loaded: None, keys: None) -> Iterator[Recorder]:
    """A recorder; tests name its URL in the request."""
    with recorder() as running:
        yield running


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every provider's key is set, and no base URL."""
    for variable in KEY_VARIABLES.values():
        monkeypatch.setenv(variable, TEST_KEY)
    for variable in (
        *BASE_URL_VARIABLES.values(),
        "GOOGLE_GEMINI_BASE_URL",
        "AZURE_OPENAI_ENDPOINT",
        "OLLAMA_HOST",
    ):
        monkeypatch.delenv(variable, raising=False)
