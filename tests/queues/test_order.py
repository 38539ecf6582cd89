"""Who is next: few doorbells outstanding, priorities, fair share between lanes, first come first served."""

from __future__ import annotations

import itertools
from collections import Counter as Tally

from counter import HERE, Counter
from sqlalchemy import select

from polos.journal.admission import DEFERRED_LANE, READ_DEFERRED_LANES, lanes_after
from polos.journal.runs import R
from polos.journal.statements import Statement


def test_what_is_beyond_the_window_is_deferred(counter: Counter) -> None:
    runs = counter.start_many(counter.window + 2)
    assert counter.slots(*runs[: counter.window]) == [None] * counter.window
    assert counter.slots(*runs[counter.window :]) == ["deferred", "deferred"]
    assert not counter.can_be_claimed(runs[-1])


def test_nobody_is_rung_before_what_is_deferred_already(counter: Counter) -> None:
    runs = counter.start_many(counter.window + 1)
    for run in runs[:3]:
        counter.claim(run)
    assert counter.slots(counter.start()) == ["deferred"]


def test_a_claim_says_that_others_wait_for_room(counter: Counter) -> None:
    runs = counter.start_many(counter.window)
    assert not counter.claim(runs[0]).leaves_backlog
    counter.start_many(2)
    assert counter.claim(runs[1]).leaves_backlog


def test_as_many_are_admitted_as_there_is_room_for_and_the_oldest_first(counter: Counter) -> None:
    runs = counter.start_many(counter.window + 6)
    assert counter.admitted() == []
    for run in runs[:4]:
        counter.claim(run)
    assert counter.admitted() == runs[counter.window : counter.window + 4]


def test_the_higher_priority_goes_first_whatever_its_lane(counter: Counter) -> None:
    first = counter.start_many(counter.window)
    low = counter.start_many(8, priority=1)
    high = counter.start_many(3, "vip", priority=9)
    for run in first[:5]:
        counter.claim(run)
    assert counter.admitted() == [*high, *low[:2]]


def test_within_a_limited_queue_the_higher_priority_goes_first(counter: Counter) -> None:
    counter.limit("q", 2)
    low = counter.start_many(2, "q", priority=0)
    high = counter.start("q", priority=6)
    assert counter.admitted() == [high, low[0]]


def test_lanes_take_turns_however_long_one_is(counter: Counter) -> None:
    first = counter.start_many(counter.window, "warm")
    counter.start_many(40, concurrency_key="a")
    counter.start_many(3, concurrency_key="b")
    counter.start_many(3, "other")
    for run in first:
        counter.claim(run)
    admitted = [counter.run(run) for run in counter.admitted()]
    share = Tally((run["queue"], run["concurrency_key"]) for run in admitted)
    assert share == {("flow", "a"): 4, ("flow", "b"): 3, ("other", ""): 3}


def test_the_lane_with_least_under_way_goes_first(counter: Counter) -> None:
    counter.start_many(counter.window - 1, concurrency_key="a")
    warm = counter.start_many(1, "warm")
    counter.start_many(5, concurrency_key="a")
    late = counter.start_many(2, concurrency_key="b")
    counter.claim(warm[0])
    assert counter.admitted() == late[:1]


def test_runs_started_together_keep_their_order(counter: Counter) -> None:
    counter.limit("q", 20)
    runs = counter.start_many(15, "q")
    assert counter.admitted() == runs[: counter.window]


def test_what_nobody_serves_keeps_nobody_out(counter: Counter) -> None:
    first = counter.start_many(counter.window)
    counter.start_many(30, "q", name="unknown")
    known = counter.start("q")
    for run in first:
        counter.claim(run)
    assert counter.admitted() == [known]


def test_what_nobody_served_is_admitted_once_somebody_does(counter: Counter) -> None:
    counter.limit("q", 1)
    run = counter.start("q", name="later")
    assert counter.admitted() == []
    counter.offer("later")
    assert counter.admitted() == [run]


def test_children_are_rung_whatever_waits_outside(counter: Counter) -> None:
    runs = counter.start_many(counter.window + 5)
    parent = counter.claim(runs[0])
    assert counter.slots(counter.child(parent, "child")) == [None]


def test_a_walk_from_lane_to_lane_misses_none(counter: Counter) -> None:
    """From the beginning, and from any lane on."""
    counter.start_many(counter.window)
    lanes = list(itertools.product(("polos", "other"), (2, 5), ("flow", "child"), ("", "ann", "bob")))
    for route, priority, queue, key in lanes * 2:
        counter.start(queue, route=route, priority=priority, concurrency_key=key)
    counter.start_many(counter.window, route="other", priority=9)  # they may go past the others
    expected = sorted({*lanes, ("other", 9, "flow", "")} & _deferred(counter), reverse=True)
    assert len(expected) > 20

    for place in (None, *range(len(expected))):
        last = None if place is None else expected[place]
        rows = counter.read(READ_DEFERRED_LANES, **HERE, **lanes_after(DEFERRED_LANE, last))
        assert [tuple(row) for row in rows] == expected[0 if place is None else place + 1 :]


def _deferred(counter: Counter) -> set[tuple[object, ...]]:
    runs = [counter.run(row[0]) for row in counter.read(Statement(select(R.id)))]
    return {tuple(run[name] for name in DEFERRED_LANE) for run in runs if run["slot"] == "deferred"}
