"""What a model call costs, in US dollars: the user's own price list first, then LiteLLM's table."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from polos.models.catalog import is_imported, litellm_provider, names_of, row_of
from polos.models.plain_prices import plain_total
from polos.models.providers import Provider
from polos.price_list import own_prices
from polos.types import Usage

logger = logging.getLogger("polos.models")

_FREE = ("ollama", "ollama_chat")  # they run on the user's own machine

Row = Mapping[str, Any]


class NeedsLiteLLMError(Exception):
    """Only LiteLLM can tell this price, and it has not been imported, which takes seconds."""


def call_cost(
    provider: Provider,
    model: str,
    usage: Usage,
    *,
    served_model: str | None = None,
    billed: Mapping[str, Any] | None = None,
    service_tier: str | None = None,
) -> float | None:
    """Return what one call costs, None when nobody lists a price for its model.

    Args:
        provider: Whom it was made to.
        model: As the user named it. Azure's deployments, and aliases, are found by `served_model`.
        usage: Its tokens.
        served_model: The name the provider answered with.
        billed: The usage as LiteLLM has it, a dict; tells kinds of tokens apart that have prices of their
            own, such as audio. Fees that are not per token, such as those of a provider's own web search,
            are not in the result.
        service_tier: ``flex``, ``priority`` and such, if the provider named one.

    Raises:
        NeedsLiteLLMError: Import `polos.models.library` off the loop, and ask again.
    """
    name = provider.litellm_model(model)
    try:
        litellm_name = litellm_provider(name)
        names = [name, *([f"{litellm_name}/{served_model}"] if served_model else [])]
        row = _own_row(provider, names) or next((row for name in names if (row := row_of(name))), None)
        if row is None:
            return 0.0 if litellm_name in _FREE else None
        if "input_cost_per_token" not in row and "tiered_pricing" not in row:
            return None  # priced by the second or the month
        return _total(name, litellm_name, usage, row, billed=billed, service_tier=service_tier)
    except NeedsLiteLLMError:
        raise
    except Exception:
        # An answer that was paid for is not lost for want of its price.
        logger.warning("The price of a call to %s cannot be told", name, exc_info=True)
        return None


def own_cost(provider: str, model: str, usage: Usage) -> float | None:
    """Return what a call to a provider of the user's own costs, None where the user's list has no price.

    Raises:
        NeedsLiteLLMError: As `call_cost`.
    """
    try:
        rows = own_prices()
        row = rows.get(f"{provider}/{model}") or rows.get(model)
        return None if row is None else _total(model, "openai", usage, row)
    except NeedsLiteLLMError:
        raise
    except Exception:
        logger.warning("The price of a call to %s/%s cannot be told", provider, model, exc_info=True)
        return None


def _total(
    name: str,
    litellm_name: str,
    usage: Usage,
    row: Row,
    *,
    billed: Mapping[str, Any] | None = None,
    service_tier: str | None = None,
) -> float:
    if (plain := plain_total(row, usage, billed, service_tier)) is not None:
        return plain
    if not is_imported():
        raise NeedsLiteLLMError
    from polos.models.library import litellm  # noqa: PLC0415 - it has been imported

    costs = litellm.cost_per_token(
        model=name,
        custom_llm_provider=litellm_name,
        usage_object=_litellm_usage(usage, billed),
        service_tier=service_tier,
        requested_model_info_override=dict(row),
    )
    return float(sum(costs))


def _own_row(provider: Provider, names: list[str]) -> Row | None:
    """Return the user's row: by our name of the provider, by LiteLLM's, or by the bare model."""
    rows = own_prices()
    return next((rows[key] for name in names for key in _keys(provider, name) if key in rows), None)


def _keys(provider: Provider, name: str) -> Iterator[str]:
    yield f"{provider.name}/{name.removeprefix(provider.prefix)}"
    yield from names_of(name)


def _litellm_usage(usage: Usage, billed: Mapping[str, Any] | None) -> Any:
    from polos.models.library import litellm  # noqa: PLC0415 - it has been imported

    if billed is not None and "prompt_tokens" in billed:
        return litellm.Usage(**billed)
    cached = {
        "cached_tokens": usage.cache_read_input_tokens,
        "cache_creation_tokens": usage.cache_creation_input_tokens,
    }
    return litellm.Usage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        prompt_tokens_details={name: count for name, count in cached.items() if count is not None},
    )
