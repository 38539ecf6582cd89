"""The price of a call where it is a sum: so many tokens of each usual kind, at one price each.

That is nearly every call. Tiers of service, prices that rise with the length of the prompt, audio and such
are left to LiteLLM, which knows them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from polos.types import Usage

_USUAL_TIERS = (None, "", "auto", "default", "standard", "on_demand")
_THRESHOLD = re.compile(r"above_(\d+)k_tokens")
# Kinds of tokens that have prices of their own where a row lists them.
_DETAILS = (
    "prompt_tokens_details",
    "completion_tokens_details",
    "input_tokens_details",
    "output_tokens_details",
)
_UNUSUAL = ("audio_tokens", "image_tokens", "video_tokens", "character_count", "ephemeral_1h_input_tokens")
_UNUSUAL_PRICES = ("tiered_pricing", "output_cost_per_reasoning_token", "cost_per_second", "off_peak_pricing")

Row = Mapping[str, Any]


def plain_total(
    row: Row, usage: Usage, billed: Mapping[str, Any] | None, service_tier: str | None
) -> float | None:
    """Return the price of a call in US dollars, None where it is more than a sum."""
    if service_tier not in _USUAL_TIERS or not _is_plain(row, usage) or _has_unusual_tokens(billed):
        return None
    read, made = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    prices = [
        (max(0, usage.input_tokens - read - made), "input_cost_per_token"),
        (usage.output_tokens, "output_cost_per_token"),
        (read, "cache_read_input_token_cost"),
        (made, "cache_creation_input_token_cost"),
    ]
    if any(tokens and not isinstance(row.get(name), int | float) for tokens, name in prices):
        return None
    return float(sum(tokens * (row.get(name) or 0.0) for tokens, name in prices))


def _is_plain(row: Row, usage: Usage) -> bool:
    if any(row.get(name) for name in _UNUSUAL_PRICES):
        return False
    return not any(usage.input_tokens > 1000 * limit for limit in _thresholds(row))


def _thresholds(row: Row) -> Iterator[int]:
    yield from (int(found[1]) for name in row if (found := _THRESHOLD.search(name)) is not None)


def _has_unusual_tokens(billed: Mapping[str, Any] | None) -> bool:
    return (
        any(_counts_unusual(billed.get(name)) for name in (*_DETAILS, "cache_creation")) if billed else False
    )


def _counts_unusual(details: Any) -> bool:
    return isinstance(details, Mapping) and any(details.get(name) for name in _UNUSUAL)
