"""The conversation of an agent run, kept once: each turn's row holds only what it adds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from polos import serialization
from polos.models.request import ModelAnswer

Item = dict[str, Any]


def first_input(items: Sequence[Item], provider_kwargs: dict[str, Any], *, streamed: bool) -> str:
    """Return the input of a run's first turn."""
    given = {"messages": list(items), "provider_kwargs": provider_kwargs}
    return serialization.dumps({**given, "streamed": True} if streamed else given)


def next_input(items: Sequence[Item], *, streamed: bool) -> str:
    """Return the input of a later turn: what came since the last answer."""
    given = {"append": list(items)}
    return serialization.dumps({**given, "streamed": True} if streamed else given)


@dataclass(frozen=True)
class Conversation:
    """What a turn sends, and whether its answer is told while it is made."""

    messages: list[Item]
    provider_kwargs: dict[str, Any]
    streamed: bool


def replayed(turns: Iterable[tuple[str, int, str, str | None]]) -> Conversation:
    """Return what the last of `turns` is to send.

    Args:
        turns: (name, position, input, output) of all turns up to it, oldest first.
    """
    messages: list[Item] = []
    provider_kwargs: dict[str, Any] = {}
    streamed = False
    for _, _, given, answered in turns:
        added = serialization.loads(given)
        if "messages" in added:
            messages = list(added["messages"])
        messages += added.get("append", [])
        provider_kwargs = added.get("provider_kwargs", provider_kwargs)
        streamed = streamed or added.get("streamed", False)
        if answered is not None:
            messages += ModelAnswer.model_validate(serialization.loads(answered)).raw_output
    return Conversation(messages, provider_kwargs, streamed)


def user_items(given: str | list[Item]) -> list[Item]:
    """Return an agent's input as conversation items."""
    return [{"role": "user", "content": given}] if isinstance(given, str) else list(given)


def output_item(call_id: str, output: str, *, is_error: bool) -> Item:
    """Return the item that answers one tool call."""
    item: Item = {"type": "function_call_output", "call_id": call_id, "output": output}
    return {**item, "is_error": True} if is_error else item
