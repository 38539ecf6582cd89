"""The model call of a turn: which agent speaks, which of its models is asked, and what is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from polos.agents.agent import Agent
from polos.agents.attempts import failures_of, model_number
from polos.agents.conversation import Asked
from polos.agents.fallbacks import ModelPolicy, model_label
from polos.agents.limits import time_for_call
from polos.agents.usage_limits import Budget, budgets_of
from polos.errors import ConfigurationError
from polos.journal.turns import TurnClaim
from polos.models.portable import portable_items
from polos.models.request import ModelAnswer, ModelRequest
from polos.settings import Settings
from polos.types import AgentConfig

LEAST_SECONDS = 1.0  # for a call of a run whose time is about to end: it is ended by the sweeper, not by us


@dataclass(frozen=True)
class ModelCall:
    """One attempt at a turn.

    Attributes:
        request: What is sent.
        asked: What the turn's row says.
        policy: Of the agent that speaks.
        is_own: Whether the provider of the run's agent is asked, for the agent's own model: what it leaves in
            the conversation for itself is kept.
        budgets: What limits the run.
    """

    request: ModelRequest
    asked: Asked
    policy: ModelPolicy
    is_own: bool = True
    budgets: Sequence[Budget] = ()

    @property
    def label(self) -> str:
        """Provider and model that are asked."""
        return model_label(self.request.provider, self.request.model)

    def kept(self, answer: ModelAnswer) -> ModelAnswer:
        """Return `answer` as the conversation keeps it, with the provider that gave it."""
        told: dict[str, Any] = {"provider": self.request.provider}
        if not self.is_own:
            told["raw_output"] = portable_items(answer.raw_output)
        return answer.model_copy(update=told)


def prepare_call(
    claim: TurnClaim, agent: Agent, asked: Asked, run: dict[str, Any], settings: Settings, *, now: float
) -> ModelCall:
    """Return the call that a turn makes next.

    Args:
        claim: The turn.
        agent: Of the run.
        asked: What the turn's row says.
        run: Its row, by column name.
        settings: Of this process.
        now: What time it is, by the clock that says when the run was created.

    Raises:
        ConfigurationError: A handoff led to an agent that this process does not have.
        UsageLimitExceededError: The deadline of the run is over.
    """
    speaker = _speaker(agent, asked)
    policy, is_own = speaker.model_policy, speaker.provider == agent.provider
    timeout = _time_for_call(policy.timeout_seconds or settings.model_timeout_seconds, run, now)
    budgets = budgets_of(agent.usage_limits, run)
    config = speaker.config().model_copy(update=asked.config)
    request = ModelRequest(
        provider=config.provider,
        model=config.model,
        messages=asked.messages if is_own else portable_items(asked.messages),
        system_prompt=config.system_prompt,
        tools=config.tools if "tools" in asked.config else _tools(config, asked, speaker),
        temperature=config.temperature,
        max_output_tokens=config.max_output_tokens,
        provider_base_url=config.provider_base_url,
        provider_llm_api=config.provider_llm_api,
        provider_kwargs=asked.provider_kwargs if is_own else {},
        top_p=config.top_p,
        output_schema=config.output_schema,
        output_schema_name=config.output_schema_name,
        idempotency_key=f"{claim.run_id}:{claim.name}",
        timeout_seconds=time_for_call(budgets, timeout, now),
        chunk_timeout_seconds=policy.chunk_timeout_seconds or settings.model_chunk_timeout_seconds,
    )
    call = ModelCall(request, asked, policy, is_own, budgets)
    return for_model(call, model_number(failures_of(claim.failures)))


def requests_of(agent: Agent) -> list[ModelRequest]:
    """Return a request to each model that the agent may ask, without what is said in it."""
    own = ModelRequest(
        provider=agent.provider, model=agent.model, messages=[], provider_llm_api=agent.provider_llm_api
    )
    others = [
        ModelRequest(
            provider=each.provider, model=each.model, messages=[], provider_llm_api=each.provider_llm_api
        )
        for each in agent.model_policy.fallback_models
    ]
    return [own, *others]


def _speaker(agent: Agent, asked: Asked) -> Agent:
    """Return the agent whose model is called."""
    speaker = agent.find_speaker(asked.agent)
    if speaker is None:
        raise ConfigurationError(
            f"Agent {agent.id!r} handed over to {asked.agent!r}, which this worker does not know: import the "
            "module that defines it (POLOS_IMPORTS), or name the agent itself in handoffs="
        )
    return speaker


def _tools(config: AgentConfig, asked: Asked, speaker: Agent) -> list[Any]:
    """Return the agent's own tools, and those its servers were found to offer when it first spoke."""
    return [*(config.tools or []), *asked.tools.get(speaker.id, [])]


def _time_for_call(timeout_seconds: float, run: dict[str, Any], now: float) -> float:
    """Return how long a call may take: no longer than its run, if that has a time of its own."""
    if not (limit := run["run_timeout_seconds"]):
        return timeout_seconds
    since = now - run["claimed_at"] if run["claimed_at"] else 0.0
    left: float = limit - run["running_seconds"] - since
    return min(timeout_seconds, max(left, LEAST_SECONDS))


def for_model(call: ModelCall, number: int) -> ModelCall:
    """Return `call` for model `number` of its agent, of which 0 is the one that it was made for.

    Another one gets of the conversation what every provider understands.
    """
    number = min(number, len(call.policy.fallback_models))  # there may be fewer since the code was changed
    if number == 0:
        return call
    request, chosen = call.request, call.policy.fallback_models[number - 1]
    functions = [tool for tool in request.tools if tool.get("type") == "function"]
    run_options = request.provider_kwargs if chosen.keeps_run_options else {}
    limit = chosen.max_output_tokens
    changes = {
        "provider": chosen.provider,
        "model": chosen.model,
        "provider_base_url": chosen.provider_base_url,
        "provider_llm_api": chosen.provider_llm_api,
        "messages": portable_items(request.messages),
        "tools": [*functions, *chosen.tools],
        "temperature": request.temperature if chosen.temperature is None else chosen.temperature,
        "max_output_tokens": request.max_output_tokens if limit is None else limit,
        "provider_kwargs": {**run_options, **chosen.provider_kwargs},
        "idempotency_key": f"{request.idempotency_key}:fallback{number}",
    }
    return replace(call, request=request.model_copy(update=changes), is_own=False)
