"""The conversation of an agent run, kept once: each turn's row holds only what it adds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from polos import serialization
from polos.models.request import ModelAnswer

Item = dict[str, Any]


def first_input(items: Sequence[Item], provider_kwargs: dict[str, Any]) -> str:
    """Return the input of a run's first turn."""
    return serialization.dumps({"messages": list(items), "provider_kwargs": provider_kwargs})


def next_input(items: Sequence[Item]) -> str:
    """Return the input of a later turn: what came since the last answer."""
    return serialization.dumps({"append": list(items)})


def replayed(turns: Iterable[tuple[str, int, str, str | None]]) -> tuple[list[Item], dict[str, Any]]:
    """Return the messages and provider options that the last of `turns` is to send.

    Args:
        turns: (name, position, input, output) of all turns up to it, oldest first.
    """
    messages: list[Item] = []
    provider_kwargs: dict[str, Any] = {}
    for _, _, given, answered in turns:
        added = serialization.loads(given)
        if "messages" in added:
            messages = list(added["messages"])
        messages += added.get("append", [])
        provider_kwargs = added.get("provider_kwargs", provider_kwargs)
        if answered is not None:
            messages += ModelAnswer.model_validate(serialization.loads(answered)).raw_output
    return messages, provider_kwargs


def user_items(given: str | list[Item]) -> list[Item]:
    """Return an agent's input as conversation items."""
    return [{"role": "user", "content": given}] if isinstance(given, str) else list(given)


def output_item(call_id: str, output: str, *, is_error: bool) -> Item:
    """Return the item that answers one tool call."""
    item: Item = {"type": "function_call_output", "call_id": call_id, "output": output}
    return {**item, "is_error": True} if is_error else item
