"""Measuring polos and its floors in turns, and what comes out."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.counts import Meter, difference, per_unit, redis_commands, statements
from benchmarks.ledger import ENGINE, Ledger
from benchmarks.servers import Site
from benchmarks.workers import polos_workers
from polos.client import PolosClient
from polos.settings import Settings

Figures = dict[str, float]
Work = Callable[[], Awaitable[Figures]]


@dataclass(frozen=True)
class Goal:
    """What a figure should reach, by database, None for nothing in particular; `less`: lower is better."""

    sqlite: float | None
    postgres: float | None
    less: bool = False

    def of(self, database: str) -> float | None:
        """Return the goal on one kind of database."""
        return self.sqlite if database == "sqlite" else self.postgres


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one figure."""

    values: tuple[float, ...]

    def summary(self) -> dict[str, Any]:
        """Return median, least and most, and all values in order."""
        return {
            "median": _short(statistics.median(self.values)),
            "min": _short(min(self.values)),
            "max": _short(max(self.values)),
            "values": [_short(value) for value in self.values],
        }


@dataclass(frozen=True)
class Bench:
    """What a workload is given: where to run, how much, and the counters of this process, the client."""

    site: Site
    quick: bool
    repeats: int
    model_url: str
    ledger: Ledger

    def size(self, full: int, quick: int) -> int:
        """Return how much is done in one repeat."""
        return quick if self.quick else full

    @asynccontextmanager
    async def polos(self, *, workers: int, models: bool = False) -> AsyncIterator[tuple[PolosClient, Meter]]:
        """Run polos workers, and connect a client and the counters."""
        url = self.model_url if models else ""
        async with polos_workers(self.site, workers, model_url=url) as fleet, self.client() as client:
            yield client, Meter(fleet, self.ledger, self.site)

    @asynccontextmanager
    async def client(self, *, deployment_id: str | None = None) -> AsyncIterator[PolosClient]:
        """Connect a client that has no worker of its own."""
        settings = Settings.from_environment(self.site.environment)
        async with PolosClient(deployment_id=deployment_id, settings=settings) as client:
            yield client


@dataclass
class Result:
    """One workload on one database, in one variant: figures of polos and of its floors, and counts."""

    workload: str
    variant: str
    database: str
    quick: bool
    unit: str
    units: int  # in one repeat
    goals: Mapping[str, Goal]
    polos: list[Figures] = field(default_factory=list)
    floors: dict[str, list[Figures]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    peak_memory_mb: float = 0.0
    notes: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # figures along the axis
    axis: str = ""

    def line(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            "workload": self.workload,
            "variant": self.variant,
            "database": self.database,
            "quick": self.quick,
            "unit": self.unit,
            "units": self.units,
            "repeats": len(self.polos),
            "figures": {name: self._figure(name) for name in self.polos[0]},
            "per_unit": per_unit(self.counts, self.units * len(self.polos)) if self.counts else {},
            "totals": {
                "transactions": self.counts[f"{ENGINE}.transactions"],
                "statements": statements(self.counts, ENGINE),
                "client_statements": statements(self.counts, "client"),
                "redis": redis_commands(self.counts),
            },
            "peak_memory_mb": round(self.peak_memory_mb, 1),
            "notes": self.notes,
            "curves": {name: [[x, _short(y)] for x, y in points] for name, points in self.curves.items()},
            "axis": self.axis,
        }

    def _figure(self, name: str) -> dict[str, Any]:
        ours = [figures[name] for figures in self.polos]
        goal = self.goals.get(name)
        floors = {
            floor: [figures[name] for figures in found]
            for floor, found in self.floors.items()
            if name in found[0]  # a floor need not have all that polos is measured by
        }
        return {
            "goal": goal.of(self.database) if goal else None,
            "less_is_better": bool(goal and goal.less),
            "polos": Spread(tuple(ours)).summary(),
            "floors": {
                floor: {
                    **Spread(tuple(values)).summary(),
                    "share": _share(ours, values, less=bool(goal and goal.less)),
                }
                for floor, values in floors.items()
            },
        }


async def measure(
    bench: Bench,
    result: Result,
    meter: Meter,
    ours: Work,
    floors: Mapping[str, Work],
    *,
    counted: bool = True,
) -> None:
    """Measure in turns: the floors and polos, then polos and the floors, so that all see the same noise.

    Args:
        counted: False where workers die with their counts.
    """

    async def polos() -> None:
        before = meter.read() if counted else None
        result.polos.append(await ours())
        if before is not None:
            result.counts.update(difference(meter.read(), before))

    async def of_floor(name: str) -> None:
        result.floors.setdefault(name, []).append(await floors[name]())

    turns: list[Callable[[], Awaitable[None]]] = [*(partial(of_floor, name) for name in floors), polos]
    for repeat in range(bench.repeats):
        for turn in reversed(turns) if repeat % 2 else turns:
            await turn()
    result.peak_memory_mb = meter.fleet.peak_memory_mb()


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def _share(ours: Sequence[float], floor: Sequence[float], *, less: bool) -> dict[str, Any]:
    """Return how much of the floor's speed polos has, repeat by repeat: 1 is as fast as the floor."""
    pairs = zip(ours, floor, strict=True)
    return Spread(tuple((other / mine if less else mine / other) for mine, other in pairs)).summary()


def _short(value: float) -> float:
    return float(f"{value:.4g}")
