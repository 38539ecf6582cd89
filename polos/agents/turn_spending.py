"""What the attempts of a turn used: as the provider counted, estimated where nobody could tell."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from polos.errors import ModelError
from polos.journal.spending import NOTHING, Spent
from polos.journal.steps import StepRow
from polos.models.estimates import input_estimate
from polos.models.request import ModelAnswer, ModelRequest
from polos.types import Usage

CHARACTERS_PER_TOKEN = 4
Price = Callable[[str, str, Usage], float | None]


@dataclass
class CallSpending:
    """What one model call used, and those of its turn before it of which nobody heard the end.

    Attributes:
        agent_id: Who speaks.
        request: The call, as those before it.
        interrupted: How many were interrupted before.
        price: What a call with such tokens costs.
        is_sent: The request may have gone out.
    """

    agent_id: str
    request: ModelRequest
    interrupted: int
    price: Price
    is_sent: bool = False

    def counted(self, answer: ModelAnswer) -> ModelAnswer:
        """Return the answer with its tokens, estimated if the provider counted none, and its cost."""
        if answer.usage.cost is not None:
            return answer
        if answer.usage.input_tokens or answer.usage.output_tokens:
            return answer.model_copy(update={"usage": self._priced(answer.usage)})
        said = [answer.content or "", *(call.function.arguments for call in answer.tool_calls)]
        usage = self._estimated(output_tokens=_tokens("".join(said)))
        return answer.model_copy(update={"usage": usage})

    def answered(self, answer: ModelAnswer) -> Spent:
        """Return what was used now that the call is answered."""
        return self._before() + self._spent(answer.usage)

    def failed(self, error: Exception) -> Spent:
        """Return what was used now that the call failed; one that was turned down used nothing."""
        usage = error.usage if isinstance(error, ModelError) else None
        return self._before() + self._spent(usage or Usage(cost=0.0))

    def broken_off(self) -> Spent:
        """Return what was used now that the call is given up."""
        return self._before() + (self._interrupted() if self.is_sent else NOTHING)

    def _before(self) -> Spent:
        return sum([self._interrupted()] * self.interrupted, NOTHING) if self.interrupted else NOTHING

    def _interrupted(self) -> Spent:
        """Return what a call used that nobody heard the end of: its input, for that is what is known."""
        return self._spent(self._estimated(output_tokens=0))

    def _estimated(self, *, output_tokens: int) -> Usage:
        given = input_estimate(self.request)
        usage = Usage(input_tokens=given, output_tokens=output_tokens, total_tokens=given + output_tokens)
        return self._priced(usage)

    def _priced(self, usage: Usage) -> Usage:
        cost = self.price(self.request.provider, self.request.model, usage)
        return usage.model_copy(update={"cost": cost})

    def _spent(self, usage: Usage) -> Spent:
        return Spent(
            self.agent_id,
            f"{self.request.provider.lower()}/{self.request.model}",
            calls=1,
            unpriced_calls=int(usage.cost is None),
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cache_read_input_tokens or 0,
            cost=usage.cost,
        )


def of_unknown_calls(agent_id: str, count: int) -> Spent:
    """Return what interrupted calls used of which not even the request can be made any more."""
    return Spent(agent_id, calls=count, unpriced_calls=count)


def _tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def usage_of(row: StepRow, answer: ModelAnswer | None, *, is_fork: bool = False) -> Usage:
    """Return what all attempts of a turn used, the same on first pass and replay.

    A turn that was not summed up used nothing if a fork has copied it; else a version that kept no sums made
    it, and it used what its answer says.
    """
    last = answer.usage if answer is not None else Usage()
    if not is_fork and not row.input_tokens + row.output_tokens:
        return last
    reads = last.cache_read_input_tokens
    return Usage(
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        total_tokens=row.input_tokens + row.output_tokens,
        cache_read_input_tokens=row.cached_tokens if row.cached_tokens else reads,
        cache_creation_input_tokens=last.cache_creation_input_tokens,
        cost=row.cost,
    )
