"""What an attempt of a turn used: as the provider counted, estimated where nobody could tell."""

from __future__ import annotations

import math
from collections.abc import Callable

from polos import serialization
from polos.errors import ModelError
from polos.journal.spending import NOTHING, Spent
from polos.models.request import ModelAnswer, ModelRequest
from polos.types import Usage

CHARACTERS_PER_TOKEN = 4
Price = Callable[[str, str, Usage], float | None]


def with_usage(answer: ModelAnswer, request: ModelRequest, price: Price) -> ModelAnswer:
    """Return the answer with its tokens, estimated if the provider counted none."""
    if answer.usage.input_tokens or answer.usage.output_tokens:
        return answer
    said = [answer.content or "", *(call.function.arguments for call in answer.tool_calls)]
    usage = _priced(_usage(_input_tokens(request), _tokens("".join(said))), request, price)
    return answer.model_copy(update={"usage": usage})


def of_answer(agent_id: str, request: ModelRequest, answer: ModelAnswer) -> Spent:
    """Return what a call used that was answered."""
    return _spent(agent_id, request, answer.usage)


def of_failure(agent_id: str, request: ModelRequest, error: Exception) -> Spent:
    """Return what a call used that failed; one that was turned down used nothing."""
    usage = error.usage if isinstance(error, ModelError) else None
    return _spent(agent_id, request, usage or Usage(cost=0.0))


def of_interrupted(agent_id: str, request: ModelRequest, count: int, price: Price) -> Spent:
    """Return what calls used of which nobody heard the end: their input, as far as that can be estimated."""
    if not count:
        return NOTHING
    one = _spent(agent_id, request, _priced(_usage(_input_tokens(request), 0), request, price))
    return sum([one] * count, NOTHING)


def _spent(agent_id: str, request: ModelRequest, usage: Usage) -> Spent:
    return Spent(
        agent_id,
        f"{request.provider.lower()}/{request.model}",
        calls=1,
        unpriced_calls=int(usage.cost is None),
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cache_read_input_tokens or 0,
        cost=usage.cost,
    )


def _priced(usage: Usage, request: ModelRequest, price: Price) -> Usage:
    return usage.model_copy(update={"cost": price(request.provider, request.model, usage)})


def _usage(given: int, got: int) -> Usage:
    return Usage(input_tokens=given, output_tokens=got, total_tokens=given + got)


def _input_tokens(request: ModelRequest) -> int:
    said = [request.system_prompt or "", serialization.dumps([request.messages, request.tools])]
    return _tokens("".join(said))


def _tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
