"""What runs are held to, as the oracles ask it; `Wanted` is the promise of a run of the week's programs."""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import dataclass
from typing import Any, Protocol

from orders import Beside, Order, Series
from week_program import CHAINS, FLAKY_FAILURES, LIMIT, TURNS, expected_output


class Promise(Protocol):
    """What a run must come to.

    Attributes:
        program: Of which program: runs of one have one shape.
        order: Of its side effects.
        turns: How many model calls are on record.
        absent: Side effects that may be left out.
        unended: Side effects that begin and never end well.
    """

    @property
    def program(self) -> str: ...

    @property
    def order(self) -> Order: ...

    @property
    def turns(self) -> int: ...

    @property
    def absent(self) -> Set[str]: ...

    @property
    def unended(self) -> Set[str]: ...

    def accepts(self, output: Any) -> bool:
        """Whether the run may come to this; an agent's run, to this answer."""

    def ends_as(self, run: dict[str, Any]) -> str:
        """Return the status a run of the tree must end with."""

    def free(self, name: str) -> int:
        """Return how often a side effect is repeated without any fault."""

    def refusals(self, run: dict[str, Any], turn: dict[str, Any]) -> int:
        """Return how many calls of a turn the model refuses."""

    def effect_of(self, tool: dict[str, Any]) -> str:
        """Return the name of a tool run's side effect."""

    def lane_of(self, root: str, name: str) -> tuple[str, int] | None:
        """Return the lane of a queue that a side effect happens in, and how many may go on there at once."""


@dataclass(frozen=True)
class Wanted:
    """A run of the week's programs that was accepted, with its number."""

    program: str
    number: int
    absent: Set[str] = frozenset()
    unended: Set[str] = frozenset()

    @property
    def order(self) -> Order:
        return Beside(Series(chain) for chain in CHAINS[self.program])

    @property
    def turns(self) -> int:
        return TURNS.get(self.program, 0)

    def accepts(self, output: Any) -> bool:
        return bool(output == expected_output(self.program, self.number))

    def ends_as(self, run: dict[str, Any]) -> str:
        return "completed"

    def free(self, name: str) -> int:
        return FLAKY_FAILURES if name == "try" else 0

    def refusals(self, run: dict[str, Any], turn: dict[str, Any]) -> int:
        return int(self.program == "week-patient" and turn.get("failures") is not None)

    def effect_of(self, tool: dict[str, Any]) -> str:
        return f"{tool['name']}.{json.loads(tool['input'])['item']}"

    def lane_of(self, root: str, name: str) -> tuple[str, int] | None:
        return ("week-limited", LIMIT) if name.endswith(".limited") else None
