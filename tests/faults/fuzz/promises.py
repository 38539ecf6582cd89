"""What a run of a random program is held to."""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from orders import Order

from fuzz.interpreter import LIMIT, lane_of
from fuzz.programs import Path, Program, Script
from fuzz.reference import Reference

INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class ProgramRun:
    """A run of a program that was accepted.

    Attributes:
        source: The program.
        reference: What it must come to.
        cancelled_after: Seconds after which it is cancelled from outside, None if it is not.
        followed: Whether somebody reads along.
    """

    source: Program
    reference: Reference
    cancelled_after: float | None = None
    followed: bool = False

    @cached_property
    def program(self) -> str:
        return self.source.model_dump_json()

    @property
    def order(self) -> Order:
        return self.reference.order

    @property
    def turns(self) -> int:
        return self.reference.turns

    @property
    def absent(self) -> Set[str]:
        return self.reference.once | self.reference.overdue

    @property
    def unended(self) -> Set[str]:
        return self.reference.unended

    def accepts(self, output: Any) -> bool:
        return _is_like(output, self.reference.output, self.reference.once)

    def ends_as(self, run: dict[str, Any]) -> str:
        if run["kind"] == "agent":
            return "completed"
        if self.cancelled_after is not None and run["parent_id"] is None and run["status"] == "cancelled":
            return "cancelled"  # who cancels may come too late
        return self.reference.statuses.get(json.loads(run["input"])["path"], "completed")

    def free(self, name: str) -> int:
        return self.reference.free.get(name, 0)

    def refusals(self, run: dict[str, Any], turn: dict[str, Any]) -> int:
        return int(script_of(run).path in self.reference.refused)

    def effect_of(self, tool: dict[str, Any]) -> str:
        return path_of(tool)

    def lane_of(self, root: str, name: str) -> tuple[str, int] | None:
        return (lane_of(root), LIMIT) if name in self.reference.limited else None


def _is_like(given: Any, wanted: Any, once: Set[str]) -> bool:
    """Whether values are equal, apart from what happens at most once: that may have been interrupted."""
    if isinstance(wanted, list):
        return (
            isinstance(given, list)
            and len(given) == len(wanted)
            and all(_is_like(*pair, once) for pair in zip(given, wanted, strict=True))
        )
    return bool(given == wanted) or (given == INTERRUPTED and wanted in once)


def path_of(run: dict[str, Any]) -> Path:
    """Return where in the program a run is, an agent's apart."""
    return str(json.loads(run["input"])["path"])


def script_of(run: dict[str, Any]) -> Script:
    """Return the script of an agent's run."""
    given = json.loads(run["input"])["input"]
    return Script.model_validate_json(given if isinstance(given, str) else given[0]["content"])
