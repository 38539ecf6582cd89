"""The conversation of an agent run, kept once: each turn's row holds only what it adds.

A turn's input is JSON data of these keys, all but the first two left out where they say nothing:

========================  ================================================================================
``messages``              the conversation, instead of what was before
``history``               a watermark: what the session remembers up to it comes before ``messages``
``append``                what is added to it
``provider_kwargs``       fields of the provider's request, from this turn on
``streamed``              readers get the answer as a stream
``tools``                 definitions of tools, by the agent they are for: what servers were found to offer
``agent``                 who speaks, where it is not the run's own agent
``config``                fields of `AgentConfig` that differ for this one call
``alone``                 beside the conversation: it gets ``messages`` only, and its answer is not added
``guarded``               its answer is told to readers once the guardrails have passed it
========================  ================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from polos import serialization
from polos.models.request import Item, ModelAnswer


@dataclass(frozen=True)
class Mark:
    """A place in a conversation."""

    remembered: int


class Conversation:
    """What a loop's next model call is to send, and which of it the session remembers.

    Args:
        given: The input of the run.
        provider_kwargs: Fields of the provider's request.
        streamed: Whether answers are told while they are made.
        history: What the session remembers, before the input.
        reference: What rows of turns say instead of it.

    Attributes:
        items: Everything the next call sends.
        remembered: What the session remembers: no answers that were refused, nor what was said of them, and
            nothing of what hooks put in its place.
    """

    def __init__(
        self,
        given: Sequence[Item],
        *,
        provider_kwargs: dict[str, Any],
        streamed: bool,
        history: Sequence[Item] = (),
        reference: dict[str, Any] | None = None,
    ) -> None:
        self.items = [*history, *given]
        self._history = list(history)
        self._reference = reference
        self.remembered = list(given)
        self._new: list[Item] | None = None  # since the last call; None: the next call says everything
        self._provider_kwargs = provider_kwargs
        self._streamed = streamed
        self._offered: dict[str, list[Item]] = {}  # since the last call

    def add(self, items: Sequence[Item], *, is_remembered: bool = True) -> None:
        """Add items to what the next call sends."""
        self._say(items, is_remembered=is_remembered)
        if self._new is not None:
            self._new += items

    def answered(self, answer: ModelAnswer) -> None:
        """Add the answer that the turn has on record: later turns find it there."""
        self._say(answer.raw_output, is_remembered=True)

    def _say(self, items: Sequence[Item], *, is_remembered: bool) -> None:
        self.items += items
        if is_remembered:
            self.remembered += items

    def offer(self, agent_id: str, tools: list[Item]) -> None:
        """Have the model of an agent know these tools too, from the next call on."""
        self._offered[agent_id] = tools

    def mark(self) -> Mark:
        """Return the place to which `forget` may go back."""
        return Mark(len(self.remembered))

    def take_back(self, said: Sequence[Item]) -> None:
        """Send these very items no more, wherever a summary has moved them."""
        gone = {id(item) for item in said}
        self.items = [item for item in self.items if id(item) not in gone]
        self._new = None

    def forget(self, mark: Mark) -> None:
        """Go on with what was said since `mark`, but do not let the session remember it."""
        del self.remembered[mark.remembered :]

    def replace(self, items: Sequence[Item]) -> None:
        """Send these items instead of everything so far."""
        if list(items) != self.items:
            same = _leading_equal(self.items, items)
            self.items = [*self.items[:same], *items[same:]]  # what is the same stays the same object
            self._new = None

    def take_input(self, *, agent: str | None, config: dict[str, Any] | None, guarded: bool) -> str:
        """Return the input of the next turn, and go on from there."""
        said: dict[str, Any] = {"append": self._new}
        if self._new is None:
            said = {**self._whole(), "provider_kwargs": self._provider_kwargs}
        self._new = []
        how = _present(
            streamed=self._streamed, tools=self._offered, agent=agent, config=config, guarded=guarded
        )
        self._offered = {}
        return serialization.dumps({**said, **how})

    def _whole(self) -> dict[str, Any]:
        """Return everything, with a reference to the history where the conversation begins with it."""
        length = len(self._history)
        if not length or _leading_equal(self.items, self._history) < length:
            return {"messages": self.items}
        return {"history": self._reference, "messages": self.items[length:]}


def _leading_equal(left: Sequence[Item], right: Sequence[Item]) -> int:
    """Return how many items both begin with."""
    pairs = zip(left, right, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def input_alone(messages: Sequence[Item], config: dict[str, Any], *, agent: str | None) -> str:
    """Return the input of a turn beside the conversation."""
    return serialization.dumps({"messages": messages, "alone": True, **_present(agent=agent, config=config)})


def _present(**keys: Any) -> dict[str, Any]:
    return {name: value for name, value in keys.items() if value}


@dataclass
class Asked:
    """What one turn is to send, and how; read from the rows of the run's turns."""

    messages: list[Item] = field(default_factory=list)
    history: dict[str, Any] | None = None
    provider_kwargs: dict[str, Any] = field(default_factory=dict)
    streamed: bool = False
    tools: dict[str, list[Item]] = field(default_factory=dict)
    agent: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    alone: bool = False
    guarded: bool = False

    @property
    def is_told_live(self) -> bool:
        """Whether readers get the answer piece by piece."""
        return self.streamed and not self.alone and not self.guarded


def replayed(turns: Iterable[tuple[str, int, str, str | None]], name: str) -> Asked:
    """Return what turn `name` is to send.

    Args:
        turns: (name, position, input, output) of all turns up to it, oldest first.
        name: The turn that is executed.
    """
    asked = Asked()
    for turn, _, given, answered in turns:
        added = serialization.loads(given)
        if turn == name and added.get("alone"):
            return Asked(
                added["messages"], alone=True, agent=added.get("agent"), config=added.get("config", {})
            )
        if not added.get("alone"):
            _add(asked, added, answered)
    return asked


def _add(asked: Asked, added: dict[str, Any], answered: str | None) -> None:
    if "messages" in added:
        asked.messages, asked.history = list(added["messages"]), added.get("history")
    asked.messages += added.get("append", [])
    asked.provider_kwargs = added.get("provider_kwargs", asked.provider_kwargs)
    asked.streamed = added.get("streamed", False)
    asked.tools |= added.get("tools", {})
    asked.agent, asked.config = added.get("agent"), added.get("config", {})
    asked.guarded = added.get("guarded", False)
    if answered is not None:
        asked.messages += ModelAnswer.model_validate(serialization.loads(answered)).raw_output


def user_items(given: str | list[Item]) -> list[Item]:
    """Return an agent's input as conversation items."""
    return [{"role": "user", "content": given}] if isinstance(given, str) else list(given)


def output_item(call_id: str, output: str | list[Item], *, is_error: bool) -> Item:
    """Return the item that answers one tool call; `output` is a text, or blocks."""
    item: Item = {"type": "function_call_output", "call_id": call_id, "output": output}
    return {**item, "is_error": True} if is_error else item
