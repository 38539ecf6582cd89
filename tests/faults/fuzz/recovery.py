"""How long what a fault interrupted had to wait for its next attempt."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from arena import Arena
from ledger import Entry

from fuzz.mix import Mix


def recovery_notes(arena: Arena, mix: Mix) -> dict[str, str]:
    """Return, for each kind of fault, p50 and p99 of the seconds that it cost."""
    ledger = arena.evidence().ledger
    seconds: dict[str, list[float]] = defaultdict(list)
    for kind, took in (*_repeated(ledger, arena.crew.strikes), *_standstills(ledger, mix.struck)):
        seconds[kind].append(took)
    return {f"{kind} p50/p99": _quantiles(each) for kind, each in sorted(seconds.items())}


def _repeated(ledger: list[Entry], strikes: list[Any]) -> Iterator[tuple[str, float]]:
    """From the strike on a worker to the next begin of what it had begun and not ended."""
    starts: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in ledger:
        if entry.phase == "start":
            starts[entry.run, entry.name].append(entry)
    ended = {(entry.run, entry.name, entry.pid) for entry in ledger if entry.phase == "end"}
    for each in starts.values():
        for first, second in pairwise(each):
            for strike in strikes:
                is_its = strike.worker == first.worker and first.at <= strike.at <= second.at
                if is_its and (first.run, first.name, first.pid) not in ended:
                    yield strike.kind, second.at - strike.at


def _standstills(ledger: list[Entry], struck: list[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    """From a fault that concerns all to the next begin of any side effect."""
    starts = sorted(entry.at for entry in ledger if entry.phase == "start")
    for kind, at in struck:
        place = bisect_right(starts, at)
        if kind in {"flush", "broker", "postgres", "echo"} and place < len(starts):
            yield kind, starts[place] - at


def _quantiles(values: list[float]) -> str:
    ordered = sorted(values)
    middle, last = ordered[len(ordered) // 2], ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)]
    return f"{middle:.1f}/{last:.1f} s of {len(ordered)}"
