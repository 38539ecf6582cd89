"""What is said of rates and of limits sees what it is there for."""

from __future__ import annotations

import pytest
from crew import Strike
from ledger import Entry
from queue_program import PARTS
from queue_scenarios import intruders
from rates import Began, _most_for_certain


def held(run: str, at: float, worker: str = "w1", parts: tuple[str, ...] = PARTS) -> list[Entry]:
    """Return what a run writes down that holds a key from its first step to its last."""
    return [
        Entry(run, f"ann.{part}", phase, 1, at + place + more, worker)
        for place, part in enumerate(parts)
        for phase, more in (("start", 0.0), ("end", 0.5))
    ]


CUT_SHORT = [*held("a", 1.0, parts=PARTS[:1]), Entry("a", "ann.use", "start", 1, 2.0, "w1")]
GOES_ON = held("a", 4.0, "w2", PARTS[1:])


def test_whoever_goes_on_with_a_run_whose_worker_was_killed_is_no_intruder() -> None:
    ledger = [*CUT_SHORT, *GOES_ON, *held("b", 9.0, "w3")]
    assert not list(intruders(ledger, [Strike("w1", "kill9", 2.2)]))


@pytest.mark.parametrize(
    ("ledger", "strikes"),
    [
        ([*held("a", 1.0), *held("b", 2.0, "w2")], []),
        ([*CUT_SHORT, *held("b", 3.0, "w2"), *held("a", 7.0, "w3", PARTS[1:])], [Strike("w1", "kill9", 2.2)]),
        ([*CUT_SHORT, *GOES_ON], []),
        ([*CUT_SHORT, *GOES_ON], [Strike("w1", "kill9", 4.5)]),
    ],
    ids=["two at once", "another in between", "nobody was struck", "struck too late"],
)
def test_an_intruder_is_seen(ledger: list[Entry], strikes: list[Strike]) -> None:
    assert list(intruders(ledger, strikes))


def test_calls_that_arrive_late_are_not_counted_twice() -> None:
    spaced = [Began(number / 10, number / 10 + 0.4 * (number % 2)) for number in range(50)]
    assert _most_for_certain(spaced) <= 10
    assert _most_for_certain([*spaced, *(Began(2.0, 2.1) for _ in range(10))]) > 11
