"""What a program must come to, told from the program alone: its output, its side effects and their order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orders import Beside, Order, Series

from fuzz.interpreter import limited_effects
from fuzz.programs import (
    Ask,
    Batch,
    Cancelled,
    Child,
    Fail,
    Hear,
    Limited,
    Node,
    Nodes,
    Once,
    Overdue,
    Parallel,
    Path,
    Program,
    Raise,
    Script,
    Spawn,
    Step,
    Talk,
    Tool,
    below,
)

ANSWERS = {"late": "first", "early": "first", "twice": "first", "never": "none"}
PLAIN = {"timer": "waited", "draw": True, "patch": True, "progress": "told", "reply": "beside"}
FAILED = "failed"


@dataclass
class Reference:
    """What a program comes to.

    Attributes:
        output: Of its run, None if that fails.
        order: Of its side effects.
        fails: Whether its run fails.
        free: How often a side effect is repeated without any fault.
        turns: How many model calls must be on record.
        refused: Paths of agents whose model refuses each call once.
        statuses: How runs below it end that do not complete, by path.
        unended: Side effects that begin and never end.
        overdue: Those of runs whose time is used up: on a slow machine before they begin.
        once: Side effects that may be left out, if a fault strikes them.
        texts: What streamed agents say, by path.
        told: Paths of events for whoever follows.
        limited: Side effects in a queue with a limit.
    """

    output: Any = None
    order: Order = field(default_factory=Series)
    fails: bool = False
    free: dict[str, int] = field(default_factory=dict)
    turns: int = 0
    refused: set[Path] = field(default_factory=set)
    statuses: dict[Path, str] = field(default_factory=dict)
    unended: set[str] = field(default_factory=set)
    overdue: set[str] = field(default_factory=set)
    once: set[str] = field(default_factory=set)
    texts: dict[Path, str] = field(default_factory=dict)
    told: set[Path] = field(default_factory=set)
    limited: set[str] = field(default_factory=set)


def reference_of(program: Program) -> Reference:
    """Return what a program must come to."""
    found = Reference()
    reading = _Reading(found)
    found.output, order, found.fails = reading.whole(program.nodes, "")
    found.order = Beside([order, *reading.loose]) if reading.loose else order
    if found.fails:
        found.output = None
        found.statuses[""] = FAILED
    return found


class _Stopped(Exception):  # noqa: N818 - a run's end
    """A run fails here."""


class _Reading:
    """Walks through a program as the interpreter does, without doing anything."""

    def __init__(self, found: Reference) -> None:
        self._found = found
        self.loose: list[Order] = []

    def whole(self, nodes: Nodes, path: Path) -> tuple[list[Any], Order, bool]:
        """Return the values of a run, the order of its effects, and whether it fails."""
        values, orders, spawned = [], [], {}
        for place, node in enumerate(nodes):
            here = below(path, place)
            if isinstance(node, Fail):  # what it has spawned goes on, beside all that follows
                self.loose += [order for _, _, order in spawned.values()]
                return [], _order(orders, {}), True
            value, order = self.one(node, here)
            values.append(value)
            orders.append(order)
            before = len(orders) - isinstance(node, Parallel)  # what a branch spawns is beside the others
            spawned |= self._spawned(node, here, before)
        return [*values, *(spawned[each][1] for each in sorted(spawned))], _order(orders, spawned), False

    def _spawned(self, node: Node, path: Path, place: int) -> dict[Path, tuple[int, list[Any], Order]]:
        """Return what a node of this run spawns, branches included, with where in the series that is."""
        if isinstance(node, Spawn):
            values, order, fails = self.whole(node.nodes, path)
            return {path: (place, [FAILED] if fails else values, order)}
        if not isinstance(node, Parallel):
            return {}
        found = {}
        for number, branch in enumerate(node.branches):
            for step, inner in enumerate(branch):
                found |= self._spawned(inner, below(below(path, number), step), place)
        return found

    def one(self, node: Node, path: Path) -> tuple[Any, Order]:
        """Return the value of a node and the order of what it does."""
        reading = getattr(self, f"_{node.kind}", None)  # type: ignore[attr-defined]
        if reading is None:
            return PLAIN[node.kind], path if node.kind == "draw" else Series()  # type: ignore[attr-defined]
        value, order = reading(node, path)
        return value, order

    def _step(self, node: Step, path: Path) -> tuple[Any, Order]:
        self._found.free[path] = min(node.fails, node.retries)
        if node.fails > node.retries:
            self._found.unended.add(path)
            return FAILED, path
        return path, path

    def _once(self, node: Once, path: Path) -> tuple[Any, Order]:
        self._found.once.add(path)
        return path, path

    def _progress(self, node: Node, path: Path) -> tuple[Any, Order]:
        self._found.told.add(path)
        return "told", Series()

    def _ask(self, node: Ask, path: Path) -> tuple[Any, Order]:
        return ANSWERS[node.answered], Series()

    def _hear(self, node: Hear, path: Path) -> tuple[Any, Order]:
        return "nothing" if node.published == "never" else path, Series()

    def _raise(self, node: Raise, path: Path) -> tuple[Any, Order]:
        return "at last", Series()

    def _tool(self, node: Tool, path: Path) -> tuple[Any, Order]:
        return path, path

    def _talk(self, node: Talk, path: Path) -> tuple[Any, Order]:
        script = Script(path=path, rounds=node.rounds, refused=node.refused)
        self._found.turns += node.rounds + 1
        if node.refused:
            self._found.refused.add(path)
        if node.streamed:
            self._found.texts[path] = script.answer
        rounds = [
            Beside([script.tool_path(number, place) for place in (0, 1)]) for number in range(node.rounds)
        ]
        return script.answer, Series(rounds)

    def _child(self, node: Child, path: Path) -> tuple[Any, Order]:
        values, order, fails = self.whole(node.nodes, path)
        if fails:
            self._found.statuses[path] = FAILED
        return FAILED if fails else values, order

    def _spawn(self, node: Spawn, path: Path) -> tuple[Any, Order]:
        return "spawned", Series()  # what it does goes on beside what follows

    def _batch(self, node: Batch, path: Path) -> tuple[Any, Order]:
        each = [
            self._child(Child(nodes=nodes), below(path, place)) for place, nodes in enumerate(node.children)
        ]
        return [value for value, _ in each], Beside(order for _, order in each)

    def _parallel(self, node: Parallel, path: Path) -> tuple[Any, Order]:
        values, orders = [], []
        for place, branch in enumerate(node.branches):
            each = [self.one(inner, below(below(path, place), step)) for step, inner in enumerate(branch)]
            values.append([value for value, _ in each])
            orders.append(Series(order for _, order in each))
        return values, Beside(orders)

    def _limited(self, node: Limited, path: Path) -> tuple[Any, Order]:
        names = limited_effects(path)
        self._found.limited.update(names)
        return names, Series(names)

    def _cancelled(self, node: Cancelled, path: Path) -> tuple[Any, Order]:
        self._found.statuses[path] = "cancelled"
        return "cancelled", path

    def _overdue(self, node: Overdue, path: Path) -> tuple[Any, Order]:
        self._found.statuses[path] = FAILED
        self._found.unended.add(path)
        self._found.overdue.add(path)
        return "overdue", path


def _order(orders: list[Order], spawned: dict[Path, tuple[int, list[Any], Order]]) -> Order:
    """Return the order of a run's effects; what was spawned is behind what was before it, beside the rest."""
    behind: Order = Series()
    for place in range(len(orders), 0, -1):
        apart = [order for at, _, order in spawned.values() if at == place]
        rest = Beside([*apart, behind]) if apart else behind
        behind = Series([orders[place - 1], rest])
    first = [order for at, _, order in spawned.values() if at == 0]
    return Beside([*first, behind]) if first else behind
