"""How much each model may be asked: what ``POLOS_MODEL_LIMITS`` says."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

MINUTE = 60.0
_RATE = re.compile(r"(\d+(?:\.\d+)?)(rps|rpm|tpm)")
_BURST = re.compile(r"burst=(\d+(?:\.\d+)?)s")
_EXAMPLE = "openai/gpt-4o=500rpm,200000tpm;anthropic/*=50rpm"


@dataclass(frozen=True)
class ModelLimit:
    """A limit of every model that `pattern` names; each model, with each key, has the whole of it.

    Attributes:
        pattern: ``provider/model``, or the beginning of one and ``*``.
        requests_per_second: Calls begun; None for any number.
        tokens_per_second: Tokens in and out, on average; None for any number.
        burst_seconds: How much of what was not used lately may be made up for at once.
    """

    pattern: str
    requests_per_second: float | None = None
    tokens_per_second: float | None = None
    burst_seconds: float = 0.0

    def matches(self, label: str) -> bool:
        """Whether it limits the model that people call `label`."""
        if self.pattern.endswith("*"):
            return label.startswith(self.pattern[:-1])
        return label == self.pattern

    def cost(self, tokens: int) -> float:
        """Return how many seconds of the allowance a call of so many tokens takes."""
        per_call = 1 / self.requests_per_second if self.requests_per_second else 0.0
        per_tokens = tokens / self.tokens_per_second if self.tokens_per_second else 0.0
        return max(per_call, per_tokens)

    def __str__(self) -> str:
        words = [f"{_number(rate * MINUTE)}{unit}" for rate, unit in self._rates() if rate is not None]
        if self.burst_seconds:
            words.append(f"burst={_number(self.burst_seconds)}s")
        return f"{self.pattern}={','.join(words)}"

    def _rates(self) -> Iterable[tuple[float | None, str]]:
        return ((self.requests_per_second, "rpm"), (self.tokens_per_second, "tpm"))


def parse_limits(text: str) -> tuple[ModelLimit, ...]:
    """Return the limits that `text` names, such as ``openai/gpt-4o=500rpm,200000tpm;anthropic/*=50rpm``.

    Raises:
        ValueError: It cannot be read; says which part and what to write instead.
    """
    limits = [_limit(part.strip()) for part in text.split(";") if part.strip()]
    patterns = [limit.pattern for limit in limits]
    if doubled := sorted({pattern for pattern in patterns if patterns.count(pattern) > 1}):
        raise ValueError(f"{doubled[0]!r} has several limits; write them together, separated by commas")
    return tuple(limits)


def limit_for(limits: Iterable[ModelLimit], label: str) -> ModelLimit | None:
    """Return the limit of a model: the one that names it, else the one that names the most of it."""
    found = [limit for limit in limits if limit.matches(label)]
    return max(found, key=lambda limit: (not limit.pattern.endswith("*"), len(limit.pattern)), default=None)


def _limit(text: str) -> ModelLimit:
    pattern, sign, values = (part.strip() for part in text.partition("="))
    if not sign or not values:
        raise ValueError(f"{text!r} is no limit; write them like {_EXAMPLE!r}")
    provider, slash, model = pattern.partition("/")
    pattern = f"{provider.lower()}{slash}{model}"
    if "*" in pattern[:-1] or (pattern != "*" and not (slash and provider and model)):
        raise ValueError(
            f"{pattern!r} names no model; write 'provider/model', with '*' at the end or nowhere, as in "
            f"{_EXAMPLE!r}"
        )
    given: dict[str, float] = {}
    for word in (word.strip() for word in values.split(",")):
        name, value = _value(pattern, word)
        if name in given:
            raise ValueError(f"{pattern!r} has {word!r} beside another limit of the same kind; leave one out")
        given[name] = value
    if set(given) == {"burst_seconds"}:
        raise ValueError(f"{pattern!r} has a burst but no limit; add one, as in {_EXAMPLE!r}")
    return ModelLimit(pattern, **given)


def _value(pattern: str, word: str) -> tuple[str, float]:
    if found := _BURST.fullmatch(word):
        return "burst_seconds", float(found[1])
    if not (found := _RATE.fullmatch(word)):
        raise ValueError(
            f"{pattern!r} has {word!r}, which is no limit; write '500rpm' (requests per minute), '10rps' "
            "(per second), '200000tpm' (tokens per minute) or 'burst=5s'"
        )
    amount, unit = float(found[1]), found[2]
    if amount <= 0:
        raise ValueError(f"{pattern!r} has {word!r}, with which it could never be asked; leave it out")
    name = "tokens_per_second" if unit == "tpm" else "requests_per_second"
    return name, amount if unit == "rps" else amount / MINUTE


def _number(value: float) -> str:
    return str(round(value)) if math.isclose(value, round(value)) else f"{value:g}"
