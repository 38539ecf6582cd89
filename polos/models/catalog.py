"""What is known of models: their options, their limits, their prices; from LiteLLM's table.

The table is read from LiteLLM's files, which takes 20 ms, as long as nobody has imported LiteLLM itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_TABLE_FILE = "model_prices_and_context_window_backup.json"
_PREFIXES = ("anthropic", "groq", "openai", "together_ai")  # whatever follows them is the model's name


def is_imported() -> bool:
    """Whether LiteLLM has been imported, so that asking it something takes no time."""
    return "polos.models.library" in sys.modules


@cache
def _shipped() -> Mapping[str, Row]:
    spec = find_spec("litellm")
    assert spec is not None, "polos depends on LiteLLM"
    assert spec.origin is not None, "it is no namespace"
    table: Mapping[str, Row] = json.loads((Path(spec.origin).parent / _TABLE_FILE).read_bytes())
    return table


def _table() -> Mapping[str, Row]:
    """Return LiteLLM's table: the one in memory, which users may have added to, if there is one."""
    if not is_imported():
        return _shipped()
    table: Mapping[str, Row] = _litellm().model_cost
    return table


def _litellm() -> Any:
    from polos.models.library import litellm  # noqa: PLC0415 - takes seconds to import, and 165 MB

    return litellm


def litellm_provider(model: str) -> str:
    """Return the provider LiteLLM takes a model of its own naming to."""
    return _split(model)[1]


@lru_cache(maxsize=1000)
def _split(model: str) -> tuple[str, str]:
    """Return the model without its prefix, and the provider that LiteLLM takes it to."""
    prefix, _, name = model.partition("/")
    if prefix in _PREFIXES and name:
        return name, prefix
    bare, provider, _, _ = _litellm().get_llm_provider(model)
    return str(bare), str(provider)


def supported_options(model: str) -> set[str]:
    """Return the names of the usual options LiteLLM can place in this model's own request format."""
    name, provider = _split(model)
    return set(_litellm().get_supported_openai_params(name, custom_llm_provider=provider) or ())


def max_output_tokens(model: str) -> int | None:
    """Return the most tokens this model can answer with, None when it is unknown."""
    table = _table()
    known = table.get(model) or table.get(model.partition("/")[2]) or {}
    limit = known.get("max_output_tokens") or known.get("max_tokens")
    return int(limit) if limit else None


def is_reasoning_model(model: str) -> bool:
    """Whether this model is known to think before it answers."""
    return bool((_table().get(model) or {}).get("supports_reasoning"))


def has_native_schemas(model: str) -> bool:
    """Whether this model is known to keep to a JSON schema that is a field of the request."""
    if litellm_provider(model) == "anthropic":
        return bool((row_of(model) or {}).get("supports_native_structured_output"))
    if litellm_provider(model).startswith("ollama"):
        return True  # LiteLLM would ask the server
    return bool(_litellm().supports_response_schema(model))


def row_of(model: str) -> Row | None:
    """Return the row of LiteLLM's table for a model of its own naming, such as ``anthropic/claude-…``."""
    provider = litellm_provider(model)
    for name in names_of(model):
        row: Row | None = _table().get(name)
        # A bare name may be another provider's model.
        if row is not None and ("/" in name or row.get("litellm_provider") == provider):
            return row
    return None


def names_of(model: str) -> Iterator[str]:
    """Yield the names under which a table may list a model of LiteLLM's naming, the exact one first."""
    bare, provider = _split(model)
    yield f"{provider}/{bare}"
    yield bare
    if provider == "fireworks_ai" and "/" not in bare:
        yield f"{provider}/accounts/fireworks/models/{bare}"
    if bare.startswith("ft:"):  # ft:gpt-4o-2024-08-06:organisation:name:id
        yield ":".join(bare.split(":")[:2])
