"""Which models an agent asks, one after the other, and how patiently it asks each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from polos.models.providers import check_llm_api, check_provider


@dataclass(frozen=True, kw_only=True)
class FallbackModel:
    """A model that an agent asks when the one before it gave no answer.

    What is None is as the agent has it. The options of a run (``temperature=…`` of `Agent.run` and others)
    are meant for the agent's own model and are not sent to this one, unless `keeps_run_options`.

    Attributes:
        provider: As of `Agent`.
        model: Model name as the provider knows it.
        provider_base_url: URL of the provider's API, instead of its public one.
        provider_llm_api: OpenAI only: ``responses`` (default) or ``chat_completions``.
        temperature: Instead of the agent's.
        max_output_tokens: Instead of the agent's.
        tools: Tools built into this provider, beside the agent's functions; those of the agent's provider are
            not offered to it.
        provider_kwargs: Fields of the provider's request, such as ``{"thinking": …}``.
        keeps_run_options: Whether the options of the run go out to this model too, below `provider_kwargs`.

    Raises:
        ValueError: Provider, model or `provider_llm_api` is missing or unknown.
        TypeError: `tools` or `provider_kwargs` is not what it should be.
    """

    provider: str
    model: str
    provider_base_url: str | None = None
    provider_llm_api: str | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    tools: Sequence[dict[str, Any]] = ()
    provider_kwargs: dict[str, Any] = field(default_factory=dict)
    keeps_run_options: bool = False

    def __post_init__(self) -> None:
        """Check what was given."""
        object.__setattr__(self, "provider", check_provider(self.provider))
        check_llm_api(self.provider_llm_api)
        if not isinstance(self.model, str) or not self.model:
            raise ValueError(f"A fallback model needs a model name, not {self.model!r}")
        if not isinstance(self.provider_kwargs, dict):
            raise TypeError(f"provider_kwargs of fallback model {self.label!r} must be a dict")
        if not all(isinstance(tool, dict) for tool in self.tools):
            raise TypeError(
                f"tools of fallback model {self.label!r} must be dicts, built into the provider; the agent's "
                "functions are offered to it anyway"
            )

    @property
    def label(self) -> str:
        """Provider and model, as people write them."""
        return model_label(self.provider, self.model)


@dataclass(frozen=True)
class ModelPolicy:
    """How an agent bears with its models.

    Attributes:
        fallback_models: Asked in order, after the agent's own.
        max_attempts: Of each model in one turn; None for the setting.
        timeout_seconds: For a whole call; None for the setting.
        chunk_timeout_seconds: For each silence in a streamed answer; None for the setting.
        fallback_on_content_filter: Whether another model is asked what a filter, or a model itself, refused.
    """

    fallback_models: tuple[FallbackModel, ...] = ()
    max_attempts: int | None = None
    timeout_seconds: float | None = None
    chunk_timeout_seconds: float | None = None
    fallback_on_content_filter: bool = False


def model_policy(
    agent_id: str,
    *,
    fallback_models: Sequence[str | FallbackModel] | None,
    model_retries: int | None,
    model_timeout_seconds: float | None,
    chunk_timeout_seconds: float | None,
    fallback_on_content_filter: bool,
) -> ModelPolicy:
    """Return the policy of an agent as its definition says it.

    Raises:
        ValueError: A fallback model, count or time cannot be used.
        TypeError: A fallback model is neither a text nor a `FallbackModel`.
    """
    if isinstance(fallback_models, str | FallbackModel):
        raise TypeError(f"Agent {agent_id!r}: fallback_models must be a list, such as [{fallback_models!r}]")
    if model_retries is not None and (type(model_retries) is not int or model_retries < 0):
        raise ValueError(f"Agent {agent_id!r}: model_retries must be 0 or more, not {model_retries!r}")
    return ModelPolicy(
        fallback_models=tuple(_fallback_model(agent_id, given) for given in fallback_models or ()),
        max_attempts=None if model_retries is None else model_retries + 1,
        timeout_seconds=_seconds(agent_id, "model_timeout_seconds", model_timeout_seconds),
        chunk_timeout_seconds=_seconds(agent_id, "chunk_timeout_seconds", chunk_timeout_seconds),
        fallback_on_content_filter=bool(fallback_on_content_filter),
    )


def _fallback_model(agent_id: str, given: object) -> FallbackModel:
    if isinstance(given, FallbackModel):
        return given
    if not isinstance(given, str):
        raise TypeError(
            f"Agent {agent_id!r}: a fallback model is 'provider/model' or a FallbackModel, not {given!r}"
        )
    provider, slash, model = given.partition("/")
    if not slash or not model:
        raise ValueError(
            f"Agent {agent_id!r}: fallback model {given!r} names no provider; write 'provider/model', "
            "such as 'anthropic/claude-sonnet-4-5'"
        )
    try:
        return FallbackModel(provider=provider, model=model)
    except ValueError as error:
        raise ValueError(f"Agent {agent_id!r}: fallback model {given!r}: {error}") from error


def _seconds(agent_id: str, name: str, given: float | None) -> float | None:
    if given is not None and (isinstance(given, bool) or not isinstance(given, int | float) or given <= 0):
        raise ValueError(f"Agent {agent_id!r}: {name} must be more than 0 seconds, not {given!r}")
    return given


def model_label(provider: str, model: str) -> str:
    """Return provider and model as people write them, such as ``openai/gpt-4o``."""
    return f"{provider.strip().lower()}/{model}"
